#include "runtime/metrics/bounds/bound_result.h"

#include <cmath>

#include "runtime/base/error.h"

namespace moesaic {

double BoundTerms::at(std::string_view name) const {
    for (const auto& [term, value] : list) {
        if (term == name) return value;
    }
    MOESAIC_ASSERT(false, "no term '{}' among {}", name, list.size());
    return 0;
}

double BoundTerms::sum() const {
    double total = 0;
    for (const auto& [name, value] : list) total += value;
    return total;
}

std::string_view name_of(AssumptionStatus status) {
    switch (status) {
        case AssumptionStatus::holds:
            return "holds";
        case AssumptionStatus::violated:
            return "violated";
        case AssumptionStatus::unknown:
            break;
    }
    return "unknown";
}

BoundResult& BoundResult::assume(std::string name, AssumptionStatus status, std::string meaning) {
    assumptions.push_back({std::move(name), status, std::move(meaning)});
    return *this;
}

BoundResult& BoundResult::assume_independent_samples() {
    return assume("independent_samples", AssumptionStatus::unknown,
                  "the samples are independent draws (documents or packed sequences, not tokens or epochs)");
}

BoundResult& BoundResult::assume_loss_in_range() {
    return assume(
        "loss_in_range", AssumptionStatus::unknown,
        "the loss lies in [0, range], and is Lipschitz where a constant is given; raw cross-entropy is not");
}

BoundResult sum_of_terms(BoundTerms terms, double range) {
    BoundResult result;
    result.value = terms.sum();
    result.terms = std::move(terms);
    result.vacuous = !(result.value < range);
    return result;
}

BoundResult risk_bound(double empirical, double value, double range) {
    BoundTerms terms;
    terms.add("empirical", empirical);
    terms.add("slack", value - empirical);
    BoundResult result;
    result.value = value;
    result.terms = std::move(terms);
    result.vacuous = !(value < range);
    return result;
}

double confidence_term(double range, double events, double delta, double samples) {
    return range * std::sqrt(std::log(events / delta) / (2 * samples));
}

}  // namespace moesaic
