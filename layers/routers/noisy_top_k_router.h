// The k best of noisy logits, where the noise's size is learnt (Shazeer et al. 2017, arXiv 1701.06538,
// eq. 3 to 5).
#pragma once

#include "layers/routers/gate.h"
#include "layers/routers/scoring.h"

namespace moesaic {

/// Declares mlp.gate.weight and mlp.gate.noise.weight [E,H]. While training, the logits are
///   x · gateᵀ + n * softplus(x · noiseᵀ), n standard normal: a number of (run.seed, layer, step, token of
///   the
/// global batch, expert), so that it does not depend on the layout. Evaluation draws nothing. With a `load`
/// loss the probability of eq. 8 is left in saved.load_probability.
class NoisyTopKRouter final : public Router {
  public:
    NoisyTopKRouter(const ModelSpec& spec, int layer, ParameterStore& store);

    [[nodiscard]] Routing route(StepContext& context, const LayerInput& in,
                                RouterSaved& saved) const override;
    void backward(StepContext& context, const LayerInput& in, const Routing& routing,
                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                  TensorView dx) const override;

  private:
    [[nodiscard]] Tensor noisy_logits(StepContext& context, const LayerInput& in, RouterSaved& saved) const;
    void measure_load(StepContext& context, RouterSaved& saved) const;

    i64 experts_, top_k_;
    u64 seed_;
    std::string noise_name_;
    bool measures_load_;
    Gate gate_, noise_gate_;
    Scoring scoring_;
};

}  // namespace moesaic
