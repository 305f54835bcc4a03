#include "runtime/metrics/bounds/compression.h"

#include <cmath>
#include <numbers>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/divergence.h"

namespace moesaic {

namespace {

BoundResult with_code_assumptions(BoundResult result) {
    result.assume_independent_samples()
        .assume("code_fixed_beforehand", AssumptionStatus::unknown,
                "the code (architecture, quantisation, coder) was fixed before the sample was seen, and the "
                "evaluated weights are the decoded ones")
        .assume_loss_in_range();
    return result;
}

}  // namespace

BoundResult occam_bound(const CompressedModel& input) {
    const double nats = input.bits * std::numbers::ln2 - std::log(input.delta);
    const double slack = input.range * std::sqrt(nats / (2 * input.samples));
    return with_code_assumptions(risk_bound(input.train_loss, input.train_loss + slack, input.range));
}

BoundResult occam_kl_bound(const CompressedModel& input) {
    const double nats = input.bits * std::numbers::ln2 - std::log(input.delta);
    const double upper = kl_inverse(input.train_loss / input.range, nats / input.samples);
    return with_code_assumptions(risk_bound(input.train_loss, input.range * upper, input.range));
}

BoundResult lotfi_bound(const CompressedModel& input, double subsample) {
    MOESAIC_ASSERT(subsample >= 1, "subsample {}", subsample);
    const double share = subsample / (subsample + input.samples);
    BoundTerms terms;
    terms.add("empirical", input.train_loss);
    terms.add("code",
              input.range * std::sqrt((input.bits * std::numbers::ln2 - std::log(share * input.delta)) /
                                      (2 * input.samples)));
    terms.add("subsample", input.range * std::sqrt(-std::log((1 - share) * input.delta) / (2 * subsample)));
    BoundResult result = with_code_assumptions(sum_of_terms(std::move(terms), input.range));
    result.assume("subsample_random", AssumptionStatus::unknown,
                  "the subsample was drawn at random, independently of the model");
    return result;
}

double prefix_free_bits(double bits) {
    return bits <= 1 ? bits : bits + 2 * std::log2(bits);
}

double smoothed_bits(double probability, double smoothing, double vocabulary) {
    return -std::log2((1 - smoothing) * probability + smoothing / vocabulary);
}

double smoothed_range(double smoothing, double vocabulary) {
    return std::log2(1 + (1 - smoothing) * vocabulary / smoothing);
}

}  // namespace moesaic
