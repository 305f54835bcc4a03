// Experts by the token's id: a fixed balanced table, nothing learnt (Roller et al. 2021, Hash Layers, arXiv
// 2106.04426).
#pragma once

#include "layers/router.h"

namespace moesaic {

/// Declares nothing. A keyed permutation of the vocabulary (by router.hash_seed and the layer) deals the ids
/// out to the experts, as many to each, one more or less; further choices follow at equal distances. Weights
/// are 1/K.
class HashRouter final : public Router {
  public:
    HashRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext&, const LayerInput&, const Routing&, ConstTensorView, const BalanceTarget&,
                  RouterSaved&, TensorView) const override {}

  private:
    i64 top_k_;
    Tensor table_;  // i32 [V,K]
};

}  // namespace moesaic
