// The k experts with the best scores (Shazeer et al. 2017; Fedus et al. 2021, eq. 1), of all experts or of
// the best groups (DeepSeek-V2, arXiv 2405.04434, section 2.1.2).
#pragma once

#include "layers/routers/gate.h"
#include "layers/routers/scoring.h"

namespace moesaic {

/// Declares mlp.gate.weight [E,H]. Kinds `top_k` and `group_limited`.
class TopKRouter final : public Router {
  public:
    TopKRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                  TensorView dx) const override;

  private:
    Gate gate_;
    Scoring scoring_;
};

}  // namespace moesaic
