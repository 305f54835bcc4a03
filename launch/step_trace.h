// The timeline of one training step over all ranks, as a file for ui.perfetto.dev and chrome://tracing.
#pragma once

#include <string>
#include <vector>

#include "launch/rank_runtime.h"

namespace moesaic {

/// One rank's step. Seconds since some moment that is the same for all ranks.
struct RankTrace {
    int rank = 0;
    std::string host;
    double began = 0, ended = 0;
    std::vector<WorkSpan> work;
    /// A collective, with a key that says which of its group's it is, the same on all of its ranks.
    struct Collective {
        std::string name, key;  ///< an empty key: between two ranks
        i64 rows = 0, row_bytes = 0;
        double began = 0, ended = 0;
    };
    std::vector<Collective> collectives;
};

/// In the Trace Event Format ("JSON Object Format"): a process for each rank, with a track for its work and
/// one for collectives, each of which holds how long the rank waited there for the last one to come.
[[nodiscard]] std::string chrome_trace(i64 step, const std::vector<RankTrace>& ranks);

/// Watches one step of this rank.
class StepTrace {
  public:
    /// Collective over the world. Before the step; measures how far apart the ranks' clocks are.
    StepTrace(RankRuntime& runtime, i64 step);
    /// Collective over the world. After the step; rank 0 writes FOLDER/trace.stepN.json. Returns its path.
    std::string write(const std::string& folder);

  private:
    RankRuntime& runtime_;
    i64 step_;
    double clock_ahead_ = 0;  // of rank 0's
    double began_;
};

}  // namespace moesaic
