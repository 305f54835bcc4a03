// The k experts with the largest logits, weighted by a softmax (Shazeer et al. 2017; Fedus et al. 2021, eq.
// 1).
#pragma once

#include "layers/router.h"

namespace moesaic {

/// Declares mlp.gate.weight [E,H]. p = softmax of the logits over all experts; the weights of the chosen are
///  * p_k (score softmax, not normalised), or
///  * p_k / sum of the chosen p, which is the softmax over the chosen logits, and is computed as that.
class TopKRouter final : public Router {
  public:
    TopKRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                  TensorView dx) const override;

  private:
    i64 experts_, top_k_;
    bool over_choices_;  // weights are a softmax over the chosen logits
    Weight gate_;        // [E,H]
};

}  // namespace moesaic
