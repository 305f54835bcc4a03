// Checks any layer's backward against finite differences in fp64: the objective is a random projection of its
// output.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "layers/layer.h"
#include "tests/support/layer_inputs.h"

namespace moesaic {

inline constexpr double kGradCheckTolerance = 1e-6;

/// Values that an objective depends on, with the gradient that a backward claims.
struct CheckedValues {
    std::string name;
    double* values = nullptr;
    std::vector<double> gradient;
};

/// Compares at most `most` evenly spread entries with fourth-order central differences. An error counts
/// relative to the entry, or to 1 % of the largest entry where that is more.
inline void check_against_differences(const CheckedValues& checked, const std::function<double()>& objective,
                                      std::size_t most, double h = 1e-4) {
    double largest = 0;
    for (const double g : checked.gradient) largest = std::max(largest, std::abs(g));
    const std::size_t stride = std::max<std::size_t>(1, checked.gradient.size() / most);
    for (std::size_t i = 0; i < checked.gradient.size(); i += stride) {
        const double original = checked.values[i];
        double at[4];
        const double steps[4] = {-2 * h, -h, h, 2 * h};
        for (int j = 0; j < 4; ++j) {
            checked.values[i] = original + steps[j];
            at[j] = objective();
        }
        checked.values[i] = original;
        const double slope = (8 * (at[2] - at[1]) - (at[3] - at[0])) / (12 * h);
        const double scale = std::max({std::abs(checked.gradient[i]), 0.01 * largest, 1e-3});
        EXPECT_NEAR(checked.gradient[i], slope, kGradCheckTolerance * scale)
            << checked.name << " [" << i << "]";
    }
}

/// Every parameter of `store` with its gradient, folded and rounded: in f64 both change nothing.
inline std::vector<CheckedValues> checked_parameters(Stream& compute, ParameterStore& store) {
    store.complete_gradients(compute);
    compute.synchronize();
    std::vector<CheckedValues> all;
    for (Parameter& parameter : store.parameters()) {
        const double* gradient = parameter.grad.as<double>();
        all.push_back({parameter.name, parameter.value.as<double>(),
                       std::vector<double>(gradient, gradient + parameter.grad.elements())});
    }
    return all;
}

template <Layer L>
struct GradCheck {
    RankSetup& rank;
    ParameterStore& store;
    const L& layer;
    Tensor x;  ///< f64 [T,H], or i32 [T] for the embedding
    i64 seq_len = 1;
    ConstTensorView token_ids{};  ///< LayerInput::token_ids
    /// Sets what a layer's owner puts into Saved; called before every forward.
    std::function<void(typename L::Saved&)> prepare = [](typename L::Saved&) {};
    /// Sets what depends on the forward's results; called before the backward.
    std::function<void(typename L::Saved&)> before_backward = [](typename L::Saved&) {};
    /// What the layer adds to the objective besides the projection, e.g. balance losses.
    std::function<double(const typename L::Saved&)> extra = [](const typename L::Saved&) { return 0.0; };
    double constant_projection = 0;  ///< instead of a random one; what OutputHead is given as scale
    std::size_t most_entries = 60;   ///< of each tensor
    double step = 1e-4;              ///< of the differences; small where the layer has kinks

    void run() {
        const std::function<double()> objective = [this] {
            typename L::Saved saved;
            return value(forward(saved), saved);
        };
        store.zero_gradients(*rank.compute);
        typename L::Saved saved;
        const Tensor y = forward(saved);
        const std::vector<double> weights = projection(y.elements());
        const Tensor dy = upload(rank, weights, y.shape());
        before_backward(saved);
        const Tensor dx = layer.backward(rank.context, input(), dy, saved);
        rank.drain();
        std::vector<CheckedValues> checked = checked_parameters(*rank.compute, store);
        if (dx) checked.push_back({"dx", x.as<double>(), rank.read<double>(dx)});
        EXPECT_FALSE(checked.empty());
        for (const CheckedValues& one : checked)
            check_against_differences(one, objective, most_entries, step);
    }

  private:
    [[nodiscard]] LayerInput input() const { return {x, seq_len, {}, token_ids}; }
    [[nodiscard]] Tensor forward(typename L::Saved& saved) {
        prepare(saved);
        Tensor y = layer.forward(rank.context, input(), saved);
        rank.drain();
        return y;
    }
    [[nodiscard]] std::vector<double> projection(i64 elements) const {
        if (constant_projection == 0) return normal_values("projection", elements);
        return std::vector<double>(static_cast<std::size_t>(elements), constant_projection);
    }
    [[nodiscard]] double value(const Tensor& y, const typename L::Saved& saved) const {
        const std::vector<double> weights = projection(y.elements());
        double sum = extra(saved);
        for (std::size_t i = 0; i < weights.size(); ++i) sum += weights[i] * y.as<double>()[i];
        return sum;
    }
};

}  // namespace moesaic
