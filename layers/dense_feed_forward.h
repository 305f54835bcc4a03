// The feed-forward of a layer without experts: SwiGLU (Shazeer 2020, eq. 6) between two projections.
#pragma once

#include "layers/layer.h"
#include "layers/model_spec.h"
#include "runtime/parameter_store.h"

namespace moesaic {

/// down(silu(gate(x)) * up(x)), F = spec.dense_hidden. Declares {mlp}.{gate,up}_proj [F,H] and
/// {mlp}.down_proj [H,F].
class DenseFeedForward {
  public:
    struct Saved {
        Tensor gate_up;  // [T,2F]
        Tensor hidden;   // [T,F]
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
    Weight gate_up_;  // [2F,H]
    Weight down_;     // [H,F]
};

static_assert(Layer<DenseFeedForward>);

}  // namespace moesaic
