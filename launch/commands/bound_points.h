// From the text of the options of `moesaic bound` to the inputs of one or many computations.
#pragma once

#include <vector>

#include "launch/commands/commands.h"
#include "runtime/metrics/bounds/bound_table.h"

namespace moesaic {

struct BoundPoints {
    std::vector<BoundInputs> points;   ///< experts slowest, then top_k, then samples; top_k <= experts alone
    std::vector<const Bound*> bounds;  ///< those that every point has the inputs of
    bool table = false;                ///< lists were given
};

/// Throws UserError with every mistake: numbers that are none or out of range, unknown options and bounds,
/// what contradicts itself, bounds asked for by name without their inputs, nothing to compute.
[[nodiscard]] BoundPoints read_bound_points(const BoundOptions& options);

}  // namespace moesaic
