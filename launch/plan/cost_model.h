// From a rank's work to seconds: shares of the arithmetic peak, passes over memory, and what every call
// costs.
#pragma once

#include <string>

#include "launch/plan/exchange_simulation.h"
#include "launch/plan/step_work.h"

namespace moesaic {

/// What a device reaches of its peaks. Time of a phase is the sum of its terms.
struct CostFactors {
    double projections = 1, scores = 1, experts = 1, head = 1;  ///< shares of the arithmetic peak
    /// Passes over memory, as multiples of the bytes of StepWork.
    double attention_passes = 1, expert_passes = 1, weight_passes = 1, router_passes = 1, logit_passes = 1,
           packing_passes = 1, folding_passes = 1, update_passes = 1;
    double operation_us = 0;     ///< of a call of the back end
    double collective_us = 0;    ///< of a collective, besides its bytes and the link's latency
    double sync_passes = 1;      ///< of gradients and weights that travel
    double several_threads = 1;  ///< what the threads of a rank reach of what as many ranks of one thread do
    /// Copies of arrays of this size stand for the memory: beyond the caches, or of one core within its
    /// share.
    i64 copied_bytes = i64{64} << 20;
    bool copied_by_each_core = false;
    double message_share = 1;  ///< of the copies' speed: a message within a machine
};
[[nodiscard]] const CostFactors& cost_factors(const DeviceProfile& device);

/// Seconds of a step, of the rank that the others wait for.
struct StepTimes {
    double attention = 0, router = 0, experts = 0, head = 0, rows = 0, exchange = 0, gradients = 0,
           update = 0, calls = 0;

    [[nodiscard]] double step() const {
        return attention + router + experts + head + rows + exchange + gradients + update + calls;
    }
    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("attention", attention);
        visit("router", router);
        visit("experts", experts);
        visit("head", head);
        visit("rows", rows);
        visit("exchange", exchange);
        visit("gradients", gradients);
        visit("update", update);
        visit("calls", calls);
    }
};

/// A rank's device, with peaks in operations and bytes a second.
struct RankDevice {
    double flops = 0, memory = 0;
    double shared_by = 1;  ///< ranks that take turns on a core
    double reached = 1;    ///< share of the peaks that its threads reach together
};
/// Of ranks_on_node ranks on one machine.
[[nodiscard]] RankDevice rank_device(const ClusterConfig& cluster, const std::string& precision,
                                     i64 ranks_on_node);

/// `rows` and `layer` are of one layer and micro-step; layer.seconds of a group of one rank is 0.
[[nodiscard]] StepTimes step_times(const StepWork& work, const ModelSpec& spec, const PlannedLayout& layout,
                                   const ClusterConfig& cluster, const RankDevice& rank,
                                   double fullest_over_mean, const SimulatedExchange& layer);

/// Fills what the file leaves open of a profile `cpu` by measuring this machine; half a second.
void measure_host(ClusterConfig& cluster);

}  // namespace moesaic
