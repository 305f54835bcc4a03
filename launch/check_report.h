// What `train --check` tells before any time is spent: layout, memory of a rank, traffic of a step.
#pragma once

#include <vector>

#include "comm/exchange/choose_exchange.h"
#include "comm/exchange/expected_traffic.h"
#include "launch/run_setup.h"

namespace moesaic {

/// Bytes of a step over all ranks.
struct TrafficEstimate {
    /// By phase of the exchange, all layers, at uniform routing; the first is that of counts.
    std::vector<ExpectedBytes> exchange;
    double gradients = 0;  ///< sums of gradients and the parameters that come back, without bytes to self
    /// `exchange_bytes` of the metrics.
    [[nodiscard]] double rows_to_others() const;
};
/// With `settings` as exchange, on nodes of `ranks_per_node` consecutive ranks.
[[nodiscard]] TrafficEstimate estimate_traffic(const RunSetup& run, int world, int expert_parallel,
                                               int ranks_per_node, const ExchangeSettings& settings);

/// What the report speaks of besides the run.
struct CheckedLayout {
    int world = 1, expert_parallel = 1;
    int nodes = 1, ranks_per_node = 1;
    bool simulated_nodes = false;
    int ranks_in_process = 1;  ///< more than one where ranks are threads
    ExchangeChoice exchange;
};
void print_check_report(const RunSetup& run, const CheckedLayout& layout);

}  // namespace moesaic
