// The experts that every token visits (DeepSeekMoE, Dai et al. 2024, eq. 9; gated as in Qwen2-MoE).
#pragma once

#include "layers/dense_feed_forward.h"

namespace moesaic {

/// N shared experts of width F whose results are added are one feed-forward of width N*F, and are held and
/// computed as that: y = feed_forward(x), or sigmoid(x · w) * feed_forward(x) with spec.shared_gate. Every
/// rank holds it whole and computes it for its own tokens. Declares mlp.shared_expert.{gate,up,down}_proj
/// and, with the gate, mlp.shared_expert_gate.weight [1,H]: the names of Hugging Face's Qwen2-MoE.
class SharedExpert {
  public:
    struct Saved {
        DenseFeedForward::Saved feed_forward;
        Tensor result;  // [T,H] before the gate
        Tensor logit;   // real [T,1] of the gate
    };

    SharedExpert(const ModelSpec& spec, int layer, ParameterStore& store);

    /// Does the work of forward that may run while rows travel; `add_to` then adds the result.
    void compute(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// y [T,H] += what compute() left in `saved`.
    void add_to(StepContext& context, const Saved& saved, TensorView y) const;
    /// dy [T,H] -> dx [T,H].
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

  private:
    DenseFeedForward feed_forward_;
    Weight gate_;  // [1,H]; empty without a gate
};

}  // namespace moesaic
