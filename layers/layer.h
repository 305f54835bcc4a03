// What every layer looks like: forward and backward by hand, with a struct that says what is kept in between.
#pragma once

#include <concepts>

#include "comm/step_context.h"
#include "runtime/tensor.h"

namespace moesaic {

// Letters as in runtime/backend.h: T tokens on this rank, H model width, F expert width, E experts, e local
// experts, K choices per token, S slots, R received rows, V vocabulary; O balance objects.

/// A layer's input. T may be 0: the layer then still takes part in every collective.
struct LayerInput {
    ConstTensorView x;  ///< f64, f32 or bf16 [T,H]; the embedding's is i32 [T]. Lives until the backward.
    i64 seq_len = 1;    ///< rows of one sequence; T is a multiple
    /// i32 [T] the first row that attention of row t may read; empty: the sequence's first.
    ConstTensorView first_key{};
    ConstTensorView token_ids{};  ///< i32 [T] what each row was embedded from
    i64 first_token = 0;          ///< number of row 0 in the global batch, whatever the layout

    /// The same tokens with another [T,H].
    [[nodiscard]] LayerInput with(ConstTensorView other) const {
        LayerInput in = *this;
        in.x = other;
        return in;
    }
};

/// Parameters are declared in the constructor, so that their order is the order of construction. `saved`
/// keeps exactly what the backward reads besides its input; backward adds into the gradients and returns dx
/// [T,H].
template <class L>
concept Layer = requires(const L& layer, StepContext& context, const LayerInput& in, ConstTensorView dy,
                         typename L::Saved& saved) {
    { layer.forward(context, in, saved) } -> std::same_as<Tensor>;
    { layer.backward(context, in, dy, saved) } -> std::same_as<Tensor>;
};

/// "model.layers.{layer}.{rest}", the names of Hugging Face's checkpoints.
[[nodiscard]] std::string block_parameter_name(int layer, std::string_view rest);

}  // namespace moesaic
