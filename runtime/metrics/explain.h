// What an evaluation means, in plain words.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "runtime/metrics/records.h"

namespace moesaic {

/// One paragraph without line breaks: how good the model is on data it has not met, what is certain, what the
/// gap is, and which bounds say nothing. 1 - delta is the confidence. Not `recorded`: nobody has noted all
/// that the weights were trained on.
[[nodiscard]] std::string explain(const EvalRecord& record, double delta, bool recorded = true);

/// Not a bound for gates that the model does not have.
[[nodiscard]] bool speaks_of_the_model(const BoundResult& bound);
/// heldout, heldout_lookahead, prequential, and their variants: what certificate_line shows.
[[nodiscard]] bool is_certificate(std::string_view name);
/// The certificates of a record in one line for the console, e.g. "error at most 0.443 (0.408 on 390 held-out
/// sequences)"; empty where there are none. `unit`: EvalRecord::unit.
[[nodiscard]] std::string certificate_line(const std::map<std::string, BoundResult>& bounds,
                                           const std::string& unit);

}  // namespace moesaic
