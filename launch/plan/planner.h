// Every layout of a configuration on a cluster, with what it would take.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/plan/cost_model.h"

namespace moesaic {

struct PlanOptions {
    std::vector<long> ranks;          ///< worlds to plan for; empty: all that fill nodes evenly
    std::string traffic = "uniform";  ///< how tokens choose experts, a pattern of comm/traffic
    long rows = 15;                   ///< layouts whose memory is found out, the fastest that fit
};

struct PlanRow {
    PlannedLayout layout;
    std::string exchange;
    i64 nodes = 1;
    StepWork work;
    StepTimes times;
    double fullest_over_mean = 1;  ///< rows of the ranks of a group
    /// Bytes of a step over all ranks: rows, gradients and weights.
    double row_bytes_same_node = 0, row_bytes_cross_node = 0, gradient_bytes = 0;
    double tokens_per_s = 0, utilization = 0;  ///< model FLOPs over the peak
    std::optional<i64> memory_bytes;  ///< memory_bytes of the metrics, by a dry run; empty: not tried
    bool fits = true;
    i64 idle_ranks = 0;  ///< without any micro-batch
};

/// Rows with the fastest first, those that do not fit behind. `run` is changed in between and left as it was.
/// Throws UserError where no layout is valid.
[[nodiscard]] std::vector<PlanRow> plan_layouts(RunSetup& run, const ClusterConfig& cluster,
                                                const PlanOptions& options);

/// Worlds of whole nodes: ranks_per_node times the divisors of nodes, and parts of one node.
[[nodiscard]] std::vector<i64> worlds_of(const ClusterConfig& cluster);

}  // namespace moesaic
