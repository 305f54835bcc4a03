// Which windows a run's evaluations score, chosen once.
#pragma once

#include <vector>

#include "launch/run_setup.h"

namespace moesaic {

/// Windows that are evaluated at every look, the same throughout a run.
struct EvaluationShards {
    std::vector<i64> heldout;
    std::vector<i64> seen;    ///< the first that training sees (probe_windows)
    std::vector<i64> unseen;  ///< the last of the first epoch, none of them among `seen`
    i64 seen_at_step = 0;     ///< when training has seen all of `seen`
    i64 unseen_after = 0;     ///< none of `unseen` is among the first so many sequences of the stream
};
[[nodiscard]] EvaluationShards evaluation_shards(const RunSetup& run);

}  // namespace moesaic
