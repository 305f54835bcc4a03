#include "runtime/metrics/bounds/prototype_mixture.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/counting.h"

namespace moesaic {

namespace {

/// Growth of one ReLU network (Bartlett, Harvey, Liaw, Mehrabian 2019): a factor per layer.
double relu_growth(double samples, const std::vector<double>& widths) {
    double nats = 0, weights = 0;
    for (std::size_t layer = 1; layer < widths.size(); ++layer) {
        weights += (widths[layer - 1] + 1) * widths[layer];
        const double argument =
            2 * std::numbers::e * samples * widths[layer] * static_cast<double>(layer) / weights;
        nats += std::numbers::ln2 + weights * std::log(std::max(2.0, argument));
    }
    return nats;
}

}  // namespace

BoundTerms prototype_mixture_growth(double samples, const PrototypeMixture& mixture) {
    MOESAIC_ASSERT(mixture.widths.size() >= 2 && mixture.experts >= 1, "{} widths, {} experts",
                   mixture.widths.size(), mixture.experts);
    const double pairs = mixture.experts * (mixture.experts - 1) / 2;
    BoundTerms terms;
    terms.add("routing_nats",
              ln_cells_cover(samples * pairs, (mixture.experts - 1) * (mixture.widths.front() + 1)));
    terms.add("expert_nats", mixture.experts * relu_growth(samples, mixture.widths));
    return terms;
}

BoundResult prototype_mixture_vc(const PrototypeMixture& mixture) {
    // Growth is concave in the number of points, so that it crosses points ln2 once.
    const auto shatters = [&](double points) {
        return prototype_mixture_growth(points, mixture).sum() >= points * std::numbers::ln2;
    };
    double low = 1, high = 2;
    while (shatters(high)) {
        low = high;
        high *= 2;
    }
    while (high - low > 0.5 && high > low * (1 + 1e-15)) {
        const double middle = low + (high - low) / 2;
        (shatters(middle) ? low : high) = middle;
    }
    double points = std::ceil(low);
    while (shatters(points)) ++points;
    BoundResult result;
    result.value = points;
    result.details = prototype_mixture_growth(points, mixture);
    result.assume(
        "nearest_prototype", AssumptionStatus::unknown,
        "each input goes to the expert of its nearest prototype, found exactly and not by a greedy walk");
    return result;
}

BoundResult prototype_mixture_gap(const PrototypeMixture& mixture, double samples, double delta) {
    const BoundTerms growth = prototype_mixture_growth(samples, mixture);
    BoundTerms terms;
    terms.add("growth", std::sqrt(2 * growth.sum() / samples));
    terms.add("confidence", confidence_term(1, 1, delta, samples));
    BoundResult result = sum_of_terms(std::move(terms), 1);
    result.details = growth;
    result.assume_independent_samples().assume("binary_labels", AssumptionStatus::unknown,
                                               "the loss is the 0-1 error of the sign of one output");
    return result;
}

BoundResult prototype_mixture_size(double lipschitz, double error, double inputs, double active) {
    BoundResult result;
    const double cells = std::pow(lipschitz / error, inputs);
    result.value = std::max(1.0, cells / (active * active));
    result.details.add("total_parameters", result.value * active);
    result.details.add("constant_experts", constant_experts(lipschitz, error, inputs));
    result.assume("constants_left_out", AssumptionStatus::violated,
                  "the number is exact: no, it is an order of magnitude");
    return result;
}

double constant_experts(double lipschitz, double error, double inputs) {
    return std::pow(std::ceil(lipschitz * std::sqrt(inputs) / (2 * error)), inputs);
}

}  // namespace moesaic
