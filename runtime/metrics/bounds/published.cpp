#include "runtime/metrics/bounds/published.h"

#include <cmath>

#include "runtime/metrics/bounds/counting.h"

namespace moesaic {

BoundResult published_bound(const PublishedBound& input) {
    const double labels = input.exact_binomial ? ln_binomial(input.experts, input.top_k)
                                               : ln_binomial_relaxed(input.experts, input.top_k);
    const double mask_nats = 2 * input.natarajan * labels;
    const double sample_nats = input.natarajan * std::log(2 * input.samples);
    const double confidence_nats = std::log(4 / input.delta);
    BoundTerms terms;
    terms.add("expert", 4 * input.lipschitz * input.rademacher);
    terms.add("routing", 2 * std::sqrt((mask_nats + sample_nats + confidence_nats) / (2 * input.samples)));
    BoundResult result = sum_of_terms(std::move(terms), input.range);
    result.details.add("mask_nats", mask_nats);
    result.details.add("sample_nats", sample_nats);
    result.details.add("confidence_nats", confidence_nats);
    result
        .assume(
            "certificate", AssumptionStatus::violated,
            "the expression bounds the gap: no, it stands inside O(.) and is false when R_m(H) is that of a "
            "single expert; read it as a trend")
        .assume("experts_counted_together", AssumptionStatus::unknown,
                "R_m(H) is the complexity of all experts under a fixed routing, not of one expert")
        .assume_independent_samples()
        .assume_loss_in_range();
    return result;
}

}  // namespace moesaic
