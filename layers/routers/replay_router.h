// Experts as an earlier run recorded them, for benchmarks with the traffic of a real run.
#pragma once

#include "comm/routing_trace.h"
#include "layers/router.h"

namespace moesaic {

/// Declares nothing. Token g of step s goes where the trace router.trace says, in the same layer, with
/// weights 1/K. Steps and tokens beyond the trace's begin again at its first; evaluation follows step 1.
class ReplayRouter final : public Router {
  public:
    ReplayRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext&, const LayerInput&, const Routing&, ConstTensorView, const BalanceTarget&,
                  RouterSaved&, TensorView) const override {}

  private:
    i64 top_k_, expert_layer_;
    RoutingTrace trace_;
};

}  // namespace moesaic
