// Experts as a traffic pattern says, whatever the tokens hold: balance or imbalance to order, for benchmarks.
#pragma once

#include "comm/traffic/traffic.h"
#include "layers/router.h"

namespace moesaic {

/// Declares nothing. Token g of the global batch goes where router.traffic sends it in this step and layer,
/// the same on every layout; "uniform" gives every expert the same. Weights 1/K.
class UniformRouter final : public Router {
  public:
    UniformRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext&, const LayerInput&, const Routing&, ConstTensorView, const BalanceTarget&,
                  RouterSaved&, TensorView) const override {}

  private:
    int layer_;
    i64 top_k_;
    std::unique_ptr<TrafficPattern> traffic_;
};

/// What router.traffic is asked for: one stated rank unless it states others.
[[nodiscard]] PatternShape traffic_shape(const ModelSpec& spec);

}  // namespace moesaic
