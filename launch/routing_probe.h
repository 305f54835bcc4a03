// Which experts a fixed probe of held-out tokens visits, and how many have changed since the last look.
#pragma once

#include <vector>

#include "comm/routing.h"
#include "launch/micro_batches.h"
#include "launch/rank_runtime.h"
#include "runtime/metrics/records.h"

namespace moesaic {

/// Watches the first sequences of an evaluation. Which they are is a matter of the data alone, and a token
/// counts as changed or not: shares are the same numbers on every layout. In memory alone: the first look of
/// a resumed run has nothing to compare with.
class RoutingProbe final : public RoutingObserver {
  public:
    /// Most tokens that the probe holds, in whole sequences; at least one sequence.
    static constexpr i64 kTokens = 16384;

    explicit RoutingProbe(RankRuntime& runtime);

    /// Before the forward passes of an evaluation whose micro-batches are given out as MicroBatches does.
    void begin();
    void routed(StepContext& context, int layer, const Routing& routing) override;
    /// Collective over the world but at the first look, which returns nothing. After begin() and the forward
    /// passes: by layer with experts, the share of tokens whose set of experts is another.
    [[nodiscard]] std::vector<RoutingChange> finish();

  private:
    struct Layer {
        int layer = 0;
        i64 micro_steps = 0;                   // seen since begin()
        std::vector<std::vector<i32>> chosen;  // by micro-step, [tokens, K]
    };
    RankRuntime& runtime_;
    i64 seq_len_, micro_sequences_, sequences_;
    i64 looks_ = 0, choices_ = 0;
    std::vector<Layer> layers_;
    std::vector<std::vector<i32>> before_;  // by layer [tokens, K], each token's experts in ascending order
};

}  // namespace moesaic
