// The feed-forward of a layer without experts: an activation between projections.
#pragma once

#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// down(activation(up(x))), F = spec.dense_hidden. Declares {mlp}.up_proj [F,H] and {mlp}.down_proj [H,F],
/// with swiglu {mlp}.gate_proj [F,H], with prelu {mlp}.act_fn [1].
class DenseFeedForward {
  public:
    struct Saved {
        Tensor preactivation;  // [T,hF]; its gradient afterwards
        Tensor hidden;         // [T,F]
    };

    DenseFeedForward(const ModelSpec& spec, int layer, ParameterStore& store)
        : DenseFeedForward(spec, layer, "mlp", spec.dense_hidden, store) {}
    /// Of width `hidden`, its parameters named below `prefix` in the block.
    DenseFeedForward(const ModelSpec& spec, int layer, std::string_view prefix, i64 hidden,
                     ParameterStore& store);

    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

  private:
    i64 hidden_;
    ActivationKind activation_;
    Weight up_;     // [1,hF,H], h = 2 with the gate above up, else 1
    Weight down_;   // [1,H,F]
    Weight slope_;  // [1] of prelu
};

static_assert(Layer<DenseFeedForward>);

}  // namespace moesaic
