#include "runtime/metrics/bounds/transformer_rate.h"

#include <cmath>

#include "runtime/metrics/bounds/counting.h"

namespace moesaic {

BoundResult transformer_rate(const TransformerRate& input) {
    const double active = input.layers * (input.attention_parameters + input.top_k * input.expert_parameters);
    const double routing_nats =
        input.layers * input.sequence_length * ln_binomial_relaxed(input.experts, input.top_k);
    BoundResult result;
    result.terms.add("approximation", std::pow(active, -2 * input.smoothness / input.dimension));
    result.terms.add("parameters", active / input.samples);
    result.terms.add("routing", routing_nats / input.samples);
    result.value = result.terms.sum();
    result.details.add("active_parameters", active);
    result.details.add("routing_nats", routing_nats);
    result
        .assume("certificate", AssumptionStatus::violated,
                "the number bounds the excess loss: no, constants are hidden; read it as a trend")
        .assume("active_parameters_suffice", AssumptionStatus::violated,
                "only active parameters cost samples: no, with hash routing every expert's do");
    return result;
}

}  // namespace moesaic
