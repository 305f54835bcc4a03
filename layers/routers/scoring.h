// From logits to choices and weights, and back: what all routers share that score experts.
#pragma once

#include "layers/router.h"

namespace moesaic {

/// With logits l [E] of a token, its scores s are
///  * softmax(l) over all experts, or sigmoid(l) each; and p, for the balance losses, is s divided by its sum
///    (so softmax(l) itself), as Megatron-LM and DeepSeek-V3 (eq. 18) do;
/// weights of the chosen, C of them, are scale times
///  * s of the choice, or
///  * s divided by the sum of the chosen s, which for softmax is the softmax over the chosen logits and is
///    computed as that (softmax_over_top_k, or normalize).
/// The choice itself has no derivative.
class Scoring {
  public:
    explicit Scoring(const ModelSpec& spec);

    /// All of a forward at once: scores, the best choices by scores plus `bias` (real [E] or empty) within
    /// the best groups, their weights, and saved.sums. Frees what only a forward reads.
    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in, Tensor logits, RouterSaved& saved,
                                ConstTensorView bias = {}) const;

    // The same in parts, for routers that choose otherwise.

    /// Fills saved.probability and saved.log_sum_exp, and what the functions below read.
    void score(StepContext& context, Tensor logits, RouterSaved& saved) const;
    /// i32 [T,K] the experts with the best scores, within the best groups.
    [[nodiscard]] Tensor choose(StepContext& context, const RouterSaved& saved) const;
    /// i32 [T,K] the largest of other scores [T,E].
    [[nodiscard]] Tensor choose_by(StepContext& context, ConstTensorView scores) const;
    /// Weights of these choices. Frees what only a forward reads.
    [[nodiscard]] Routing weigh(StepContext& context, Tensor expert, RouterSaved& saved) const;
    /// real [T,E], from the weights' derivatives and the balance losses'.
    [[nodiscard]] Tensor d_logits(StepContext& context, const Routing& routing, ConstTensorView d_weight,
                                  const BalanceTarget& target, const RouterSaved& saved) const;

  private:
    i64 top_k_, experts_;
    RouterSpec router_;
    BalanceSpec balance_;
    bool sigmoid_, over_choices_;
};

}  // namespace moesaic
