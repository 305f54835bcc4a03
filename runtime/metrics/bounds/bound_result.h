// What a bound returns: its value, the terms it is made of, whether it says anything, and what it assumes.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moesaic {

/// Named numbers in the order in which they were added; JSON writes them as one object.
struct BoundTerms {
    std::vector<std::pair<std::string, double>> list;

    void add(std::string name, double value) { list.emplace_back(std::move(name), value); }
    /// The number of that name; asserts that it is there.
    [[nodiscard]] double at(std::string_view name) const;
    [[nodiscard]] double sum() const;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        for (const auto& [name, value] : list) visit(name, value);
    }
};

/// Whether a condition of a theorem is met. `unknown`: nothing that was handed in can tell.
enum class AssumptionStatus { holds, unknown, violated };
[[nodiscard]] std::string_view name_of(AssumptionStatus status);

struct Assumption {
    std::string name;
    AssumptionStatus status = AssumptionStatus::unknown;
    std::string meaning;  ///< the condition, as a plain sentence

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("name", name);
        visit("status", name_of(status));
        visit("meaning", meaning);
    }
};

struct BoundResult {
    double value = 0;
    BoundTerms terms;      ///< they add up to `value`, where the formula is a sum
    BoundTerms details;    ///< what the terms were computed from: counts in nats, the best grid point ...
    bool vacuous = false;  ///< at least the range of the loss: true of any model, and so says nothing
    std::vector<Assumption> assumptions;

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("value", value);
        visit("terms", terms);
        visit("vacuous", vacuous);
        visit("assumptions", assumptions);
        visit("details", details);
    }

    BoundResult& assume(std::string name, AssumptionStatus status, std::string meaning);
    /// The two that most bounds share; from the numbers alone both stay unknown.
    BoundResult& assume_independent_samples();
    BoundResult& assume_loss_in_range();
};

/// The sum of its terms; vacuous from `range` (of the loss) on, and where it is not a number.
[[nodiscard]] BoundResult sum_of_terms(BoundTerms terms, double range);

/// value = train_loss + slack, for bounds that are not sums of closed terms.
[[nodiscard]] BoundResult risk_bound(double empirical, double value, double range);

/// Confidence term of a bound with a priori complexity: range sqrt(ln(events/delta) / (2 samples))
/// (McDiarmid).
[[nodiscard]] double confidence_term(double range, double events, double delta, double samples);

}  // namespace moesaic
