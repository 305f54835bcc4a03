// The bounds that a run recorded, for `moesaic bound RUN`.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/types.h"
#include "runtime/metrics/bounds/bound_table.h"

namespace moesaic {

struct NamedBound {
    std::string name;
    BoundKind kind = BoundKind::risk;
    BoundResult result;
};

struct RunBounds {
    i64 step = 0;
    double delta = 0.05;
    std::string meaning;
    std::vector<NamedBound> bounds;  ///< certificates first, then as the table has them
};

/// Those of the newest `eval` record in the folder's metrics.jsonl, whose last line may be cut off, and of
/// the newest `bound` record where that is of the same step. Throws UserError where there is none.
[[nodiscard]] RunBounds read_run_bounds(const std::string& run_folder);

}  // namespace moesaic
