// Which experts the held-out sequences of each source or file choose.
#pragma once

#include <vector>

#include "comm/routing.h"
#include "launch/rank_runtime.h"
#include "runtime/metrics/records.h"

namespace moesaic {

/// Counts choices by sequence while a shard is evaluated, and lets another observer see the routing.
class DomainRouting final : public RoutingObserver {
  public:
    /// `sequences` of the shard; 0: nothing is counted.
    DomainRouting(RankRuntime& runtime, RoutingObserver* next, i64 sequences);
    void routed(StepContext& context, int layer, const Routing& routing) override;

    /// Collective over the world. By layer; of the windows that were evaluated, in their order. Nothing where
    /// they are of one domain alone.
    [[nodiscard]] std::vector<DomainExperts> finish(const TaskData& data, const std::vector<i64>& windows,
                                                    u64 seed);

  private:
    struct Layer {
        int layer = 0;
        i64 micro_steps = 0;
        std::vector<i64> counts;  // [sequences, E]
    };

    RankRuntime& runtime_;
    RoutingObserver* next_;
    i64 sequences_;
    std::vector<Layer> layers_;
};

}  // namespace moesaic
