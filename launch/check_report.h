// What `train --check` tells before any time is spent: layout, memory of a rank, traffic of a step.
#pragma once

#include "comm/communicator.h"
#include "launch/run_setup.h"

namespace moesaic {

/// Bytes of a step over all ranks, without bytes to self.
struct TrafficEstimate {
    i64 exchange = 0;   ///< dispatch and combine, forward and backward, at even routing
    i64 gradients = 0;  ///< sums of gradients and the parameters that come back
};
[[nodiscard]] TrafficEstimate estimate_traffic(const RunSetup& run, int world, int expert_parallel);

/// `ranks_in_process`: more than one where ranks are threads.
void print_check_report(const RunSetup& run, int world, int expert_parallel, const Topology& topology,
                        int ranks_in_process);

}  // namespace moesaic
