// The expert whose prototype is nearest to the token (MoMLP, arXiv 2402.03460: cells around prototypes, one
// expert each).
#pragma once

#include "layers/routers/scoring.h"

namespace moesaic {

/// Declares mlp.prototypes.weight [E,H]; the logits are minus the squared distances, K = 1, ties to the lower
/// expert. Learnt prototypes: the weight is the softmax over all experts, which gives them a gradient. Fixed
/// ones: the weight is 1, they stay as they are.
class NearestPrototypeRouter final : public Router {
  public:
    NearestPrototypeRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                  TensorView dx) const override;

  private:
    i64 experts_;
    bool learns_;
    Weight prototypes_;  // [E,H]
    Scoring scoring_;
};

}  // namespace moesaic
