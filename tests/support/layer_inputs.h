// Values for tests of layers: functions of a name, not of the layout.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/parameter_store.h"
#include "tests/support/rank_setup.h"

namespace moesaic {

/// Standard normal numbers times `scale`.
[[nodiscard]] inline std::vector<double> normal_values(std::string_view name, i64 count, double scale = 1) {
    const Philox random(17, name);
    std::vector<double> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = scale * random.normal(i);
    return values;
}

/// Whole numbers in [0, bound).
[[nodiscard]] inline std::vector<i32> whole_values(std::string_view name, i64 count, i64 bound) {
    const Philox random(17, name);
    std::vector<i32> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<i32>(random.bits(i) % static_cast<u32>(bound));
    }
    return values;
}

/// A copy on the rank's device, complete on return.
template <Element T>
[[nodiscard]] Tensor upload(RankSetup& rank, const std::vector<T>& values, Shape shape) {
    Tensor tensor = rank.backend->allocate(shape, dtype_of<T>());
    if (!values.empty()) rank.backend->copy(*rank.compute, view_of(values.data(), shape), tensor);
    rank.drain();
    return tensor;
}

/// Allocates the store and adds noise to every value, so that no norm's weight is trivially 1. f64 only.
inline void allocate_with_noise(RankSetup& rank, ParameterStore& store, double noise = 0.1) {
    store.allocate(*rank.compute, 5);
    for (Parameter& parameter : store.parameters()) {
        const std::vector<double> extra =
            normal_values(parameter.name + " noise", parameter.value.elements(), noise);
        double* values = parameter.value.as<double>();
        for (std::size_t i = 0; i < extra.size(); ++i) values[i] += extra[i];
    }
}

}  // namespace moesaic
