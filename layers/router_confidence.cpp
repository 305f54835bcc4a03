#include "layers/router_confidence.h"

namespace moesaic {

void sum_confidence(StepContext& context, const Routing& routing, RouterSaved& saved) {
    const i64 tokens = saved.probability.rows();
    if (tokens == 0) return;
    Backend& backend = context.backend;
    const Shape parts{(tokens + kConfidenceRows - 1) / kConfidenceRows};
    Tensor entropy = backend.allocate(parts, DType::f64);
    Tensor first_weight = backend.allocate(parts, DType::f64);
    backend.router_confidence(context.compute, {.probability = saved.probability,
                                                .weight = routing.weight,
                                                .rows_per_part = kConfidenceRows,
                                                .entropy_sum = entropy,
                                                .first_weight_sum = first_weight});
    const auto to_host = [&](const Tensor& from, std::vector<double>& to) {
        to.assign(static_cast<std::size_t>(from.elements()), 0.0);
        backend.copy(context.compute, from, view_of(to.data(), from.shape()));
    };
    to_host(entropy, saved.confidence.entropy);
    to_host(first_weight, saved.confidence.first_weight);
}

}  // namespace moesaic
