// Tokens share out the experts evenly by a few Sinkhorn iterations while training (Lewis et al. 2021, BASE
// layers, arXiv 2103.16716; Clark et al. 2022, S-BASE, arXiv 2202.01169).
#pragma once

#include "layers/routers/gate.h"
#include "layers/routers/scoring.h"

namespace moesaic {

/// Declares mlp.gate.weight [E,H]. While training, a token's experts are the largest of its row of the
/// balanced plan over its sequence or its micro-batch, both of which are the same on every layout; evaluation
/// takes the best scores, so that no token's result depends on later ones. Weights come from the plain
/// scores.
class SinkhornRouter final : public Router {
  public:
    SinkhornRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                  TensorView dx) const override;

  private:
    [[nodiscard]] Tensor choose_balanced(StepContext& context, const LayerInput& in,
                                         const RouterSaved& saved) const;

    i64 iterations_;
    bool per_sequence_;
    Gate gate_;
    Scoring scoring_;
};

}  // namespace moesaic
