// Experts in turn, whatever the tokens hold: perfect balance, for benchmarks.
#pragma once

#include "layers/router.h"

namespace moesaic {

/// Declares nothing. Token g of the global batch goes to experts g K, g K + 1, ... modulo E, with weights
/// 1/K.
class UniformRouter final : public Router {
  public:
    UniformRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext&, const LayerInput&, const Routing&, ConstTensorView, const BalanceTarget&,
                  RouterSaved&, TensorView) const override {}

  private:
    i64 experts_, top_k_;
};

}  // namespace moesaic
