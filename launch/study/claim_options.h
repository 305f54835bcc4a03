// What the kinds of claims share: options as numbers, means over cells, verdicts from intervals.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "launch/study/claims.h"
#include "runtime/base/error.h"
#include "runtime/metrics/statistics/summary.h"

namespace moesaic {

/// The option as a number; `otherwise` where it is not given.
[[nodiscard]] double claim_number(const StudyClaim& claim, const std::string& option, double otherwise);
[[nodiscard]] std::string claim_text(const StudyClaim& claim, const std::string& option);

/// The columns in which a row must have a number for the claim to count it: its options `of`, `with`,
/// `above`, `over`, `by`, `against` (one or several), `samples`, `experts`, `top_k`.
[[nodiscard]] std::vector<std::string> claim_columns(const StudyClaim& claim);
/// "a, b" or "[a, b]".
[[nodiscard]] std::vector<std::string> split_list(const std::string& text);

/// Whether the row lies where the options "SIDE.COLUMN" say; empty where it lacks a value to tell by.
[[nodiscard]] std::optional<bool> lies_at(const StudyClaim& claim, const std::string& side,
                                          const StudyRow& row);

/// Whether the value meets "4", "word", ">= 1000", "> 8", "<= 2" or "< 8".
[[nodiscard]] bool meets(const std::string& value, const std::string& condition);

/// A column's finite numbers in these rows.
[[nodiscard]] std::vector<double> numbers_of(const std::vector<const StudyRow*>& rows,
                                             const std::string& column);

/// Reproduced where the interval lies within [low, high], not reproduced where it lies outside, else
/// inconclusive.
[[nodiscard]] Verdict verdict_of(double interval_low, double interval_high, double low, double high);

inline constexpr double kUnlimited = std::numeric_limits<double>::infinity();
inline constexpr long kEnoughSeeds = 5;  ///< below which no test speaks
/// Losses are seldom by accident: with more of them no verdict is given.
[[nodiscard]] inline bool too_many_lost(long lost, long all) {
    return lost * 10 > all;
}

}  // namespace moesaic
