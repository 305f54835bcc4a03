// How bounds are shown to people: values under what they promise, and every assumption once.
#pragma once

#include "launch/commands/run_bounds.h"

namespace moesaic {

[[nodiscard]] std::string short_bound_number(double value);
/// A line each, under a heading for each kind; 1 - delta is the confidence.
void print_bound_values(const std::vector<NamedBound>& bounds, double delta);
/// Each assumption once, with the bounds that make it.
void print_bound_assumptions(const std::vector<NamedBound>& bounds);

}  // namespace moesaic
