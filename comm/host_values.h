// Host vectors into tensors and back, for plans.
#pragma once

#include <algorithm>
#include <vector>

#include "comm/step_context.h"

namespace moesaic {

/// The first elements of `to` become `values`. All work on compute has been waited for, so that the host may
/// write host memory at once. A GPU's is copied to: pages that the host writes would leave it and come back.
template <Element T>
void store_values(StepContext& context, const std::vector<T>& values, TensorView to) {
    if (values.empty()) return;
    const auto count = static_cast<i64>(values.size());
    MOESAIC_ASSERT(count <= to.elements(), "{} values into {}", count, to.shape.text());
    if (to.device == Device::cpu) {
        std::copy(values.begin(), values.end(), to.as<T>());
        return;
    }
    context.backend.copy(context.compute, view_of(values.data(), {count}), to.flat(0, count));
    context.compute.synchronize();  // `values` may go
}

/// Enqueued: `to`, as large as `from`, holds the values after the next synchronize.
template <Element T>
void load_values(StepContext& context, ConstTensorView from, std::vector<T>& to) {
    if (to.empty()) return;
    context.backend.copy(context.compute, from, view_of(to.data(), from.shape));
}

}  // namespace moesaic
