// Every expert takes the tokens of a sequence that score it best (Zhou et al. 2022, arXiv 2202.09368).
#pragma once

#include "layers/routers/gate.h"
#include "layers/routers/scoring.h"

namespace moesaic {

/// Declares mlp.gate.weight [E,H]. Of each sequence of n tokens an expert takes ceil(n * top_k / E), so that
/// a token visits top_k experts on average, and E at most: K = E, with -1 where an expert does not take it. A
/// weight is the softmax over all experts. Later tokens decide about earlier ones: not for causal models.
class ExpertChoiceRouter final : public Router {
  public:
    ExpertChoiceRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                  TensorView dx) const override;

  private:
    i64 experts_, top_k_;
    Gate gate_;
    Scoring scoring_;
};

}  // namespace moesaic
