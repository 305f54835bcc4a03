// A mixture of experts that is slow and obvious: no dispatch, no sort, no ranks.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "layers/model_spec.h"

namespace moesaic {

using NamedValues = std::map<std::string, std::vector<double>>;  // row-major, matrices [out, in]

/// w [out, in] times x [in].
inline std::vector<double> matrix_times(const std::vector<double>& w, const std::vector<double>& x) {
    std::vector<double> y(w.size() / x.size(), 0.0);
    for (std::size_t i = 0; i < y.size(); ++i) {
        for (std::size_t j = 0; j < x.size(); ++j) y[i] += w[i * x.size() + j] * x[j];
    }
    return y;
}

/// down(activation(up(x))) with the weights below `prefix`.
inline std::vector<double> reference_expert(ActivationKind kind, const NamedValues& weights,
                                            const std::string& prefix, const std::vector<double>& x) {
    std::vector<double> hidden = matrix_times(weights.at(prefix + "up_proj.weight"), x);
    if (kind == ActivationKind::swiglu) {
        const std::vector<double> gate = matrix_times(weights.at(prefix + "gate_proj.weight"), x);
        for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] *= gate[i] / (1 + std::exp(-gate[i]));
    }
    for (double& one : hidden) {
        if (kind == ActivationKind::gelu) one *= 0.5 * (1 + std::erf(one / std::sqrt(2.0)));
        if (kind == ActivationKind::relu) one = std::max(one, 0.0);
        if (kind == ActivationKind::prelu && one < 0) one *= weights.at(prefix + "act_fn.weight")[0];
    }
    return matrix_times(weights.at(prefix + "down_proj.weight"), hidden);
}

/// One token x [H] through the experts of block 0: for each of its choices, run the expert.
inline std::vector<double> reference_moe(const ModelSpec& spec, const NamedValues& weights,
                                         const std::vector<double>& x) {
    const std::string prefix = "model.layers.0.mlp.";
    const std::vector<double> logits = matrix_times(weights.at(prefix + "gate.weight"), x);
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
    order.resize(static_cast<std::size_t>(spec.top_k));
    const bool chosen_only = spec.router.normalize || spec.router.score == RouterScore::softmax_over_top_k;
    double sum = 0;
    for (std::size_t expert = 0; expert < logits.size(); ++expert) {
        const bool chosen = std::find(order.begin(), order.end(), expert) != order.end();
        if (chosen || !chosen_only) sum += std::exp(logits[expert]);
    }
    std::vector<double> y(x.size(), 0.0);
    for (const std::size_t expert : order) {
        const std::vector<double> out =
            reference_expert(spec.activation, weights, prefix + "experts." + std::to_string(expert) + ".", x);
        for (std::size_t i = 0; i < y.size(); ++i) y[i] += std::exp(logits[expert]) / sum * out[i];
    }
    if (spec.shared_experts == 0) return y;
    const std::vector<double> shared =
        reference_expert(spec.activation, weights, prefix + "shared_expert.", x);
    const double gate =
        spec.shared_gate
            ? 1 / (1 + std::exp(-matrix_times(weights.at(prefix + "shared_expert_gate.weight"), x)[0]))
            : 1;
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += gate * shared[i];
    return y;
}

}  // namespace moesaic
