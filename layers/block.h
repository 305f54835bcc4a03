// One transformer block: attention, then a feed-forward with or without experts, each after a norm and around
// a residual.
#pragma once

#include <optional>

#include "layers/attention_layer.h"
#include "layers/dense_feed_forward.h"
#include "layers/moe_layer.h"
#include "layers/rms_norm_layer.h"

namespace moesaic {

/// middle = x + attention(norm(x)); y = middle + feed_forward(norm(middle)).
class Block {
  public:
    struct Saved {
        RmsNormLayer::Saved input_norm;
        Tensor attention_in;  // [T,H]
        AttentionLayer::Saved attention;
        Tensor middle;  // [T,H]
        RmsNormLayer::Saved post_norm;
        Tensor feed_forward_in;  // [T,H]
        DenseFeedForward::Saved dense;
        MoELayer::Saved experts;
    };

    /// `exchange` may be null where the block has no experts.
    Block(const ModelSpec& spec, int layer, const Mesh& mesh, Exchange* exchange, const RotaryTable& rotary,
          ParameterStore& store);

    /// Collective over mesh.experts() where the block has experts. In phase `recompute` the routing in
    /// `saved` is followed again, all else computed anew to the same bits.
    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

    /// What phase `recompute` cannot bring back: the router's decision and its statistics.
    [[nodiscard]] static Saved keep_decisions(Saved saved);

    [[nodiscard]] bool has_experts() const { return experts_.has_value(); }

  private:
    RmsNormLayer input_norm_;
    AttentionLayer attention_;
    RmsNormLayer post_norm_;
    std::optional<DenseFeedForward> dense_;
    std::optional<MoELayer> experts_;
};

static_assert(Layer<Block>);

}  // namespace moesaic
