// The family of bounds as one table: the calculator, the documentation and the tests read it.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/metrics/bounds/bound_inputs.h"
#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

enum class BoundKind {
    gap,         ///< upper bound of true minus empirical loss
    risk,        ///< upper bound of the true loss
    trend,       ///< an expression of the literature that is no certificate
    measure,     ///< to compare runs by
    dimension,   ///< a count
    prediction,  ///< a fitted law
};
[[nodiscard]] std::string_view name_of(BoundKind kind);

struct Bound {
    std::string_view name;
    BoundKind kind;
    std::string_view help;    ///< one line
    std::string_view source;  ///< paper and place, or Moesaic
    std::string_view needs;   ///< names of inputs, separated by blanks; alternatives by "|"
    BoundResult (*compute)(const BoundInputs&);
};

/// Every bound, in the order in which they are shown: what certifies most comes first.
[[nodiscard]] std::span<const Bound> bound_table();
/// nullptr when there is none of that name.
[[nodiscard]] const Bound* find_bound(std::string_view name);
/// Names of needed inputs that are absent ("router_inputs|natarajan" where either would do); empty:
/// computable.
[[nodiscard]] std::vector<std::string> missing_inputs(const Bound& bound, const BoundInputs& inputs);

}  // namespace moesaic
