// The k experts with the best sigmoid scores plus a bias that evens out their load without a loss
// (DeepSeek-V3, arXiv 2412.19437, section 2.1.2; Wang et al. 2024, arXiv 2408.15664).
#pragma once

#include "layers/routers/gate.h"
#include "layers/routers/scoring.h"

namespace moesaic {

/// Declares mlp.gate.weight [E,H] and the buffer mlp.gate.e_score_correction_bias [E]. The bias takes part in
/// the choice alone; weights come from the scores without it. After each optimizer step it moves by
/// router.bias_rate towards experts with less than the mean load of the whole batch.
class SigmoidBiasRouter final : public Router {
  public:
    SigmoidBiasRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                  TensorView dx) const override;
    void update(StepContext& context, std::span<const i64> counts) override;
    [[nodiscard]] std::vector<double> selection_bias() const override;

  private:
    double rate_;
    bool recentre_;
    Gate gate_;
    Buffer& bias_;
    Scoring scoring_;
};

}  // namespace moesaic
