// What the doctor measures: arithmetic, memory, and messages between ranks.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "launch/doctor/finding.h"

namespace moesaic {

/// One figure of one rank.
struct Measurement {
    std::string name;
    double best = 0, median = 0;  ///< operations or bytes per second
    std::string note;             ///< how it was measured
    bool all_threads = false;     ///< of all the rank's threads, so that ranks of a node add up
    bool arithmetic = true;       ///< operations, otherwise bytes
};

/// Collective over `world`: the ranks measure at the same time, so that ranks of a node share what it has.
/// `local_ranks` on this node, each with `threads`.
[[nodiscard]] std::vector<Measurement> measure_machine(Communicator& world, int threads, int local_ranks);

/// Collective over `world`, two ranks or more: latency and bandwidth between rank 0 and a rank of its node
/// and of another one, and all-to-alls. Rows are returned on rank 0. `hosts` of all ranks.
[[nodiscard]] Findings measure_messages(Communicator& world, const std::vector<std::string>& hosts);

/// Rows of one node from what its ranks measured: sums of what adds up, rank by rank for one core. Ranks that
/// take turns on a core each find it whole: sums are multiplied by `share`, processors over threads, at
/// most 1.
[[nodiscard]] Findings measured_rows(const std::string& host,
                                     const std::vector<std::vector<Measurement>>& ranks, double share);

}  // namespace moesaic
