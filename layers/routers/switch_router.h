// One expert for each token, weighted by its probability (Fedus et al. 2021, arXiv 2101.03961, eq. 1 and
// 2).
#pragma once

#include "layers/routers/gate.h"
#include "layers/routers/scoring.h"

namespace moesaic {

/// Declares mlp.gate.weight [E,H]. While training, the router (not the expert) sees each element of its input
/// times a factor uniform in [1 - jitter, 1 + jitter): a number of (run.seed, layer, step, token of the
/// global batch, element), so that it does not depend on the layout. Evaluation draws nothing.
class SwitchRouter final : public Router {
  public:
    SwitchRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                  TensorView dx) const override;

  private:
    [[nodiscard]] bool jitters(const StepContext& context) const {
        return jitter_ > 0 && context.phase != Phase::evaluate;
    }
    void draw_jitter(StepContext& context, const LayerInput& in, RouterSaved& saved) const;

    double jitter_;
    u64 seed_;
    std::string jitter_name_;
    Gate gate_;
    Scoring scoring_;
};

}  // namespace moesaic
