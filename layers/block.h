// One block of a model: attention, then a feed-forward with or without experts, each after a norm and around
// a residual; of an MLP the feed-forward alone.
#pragma once

#include <optional>

#include "layers/attention_layer.h"
#include "layers/dense_feed_forward.h"
#include "layers/moe_layer.h"
#include "layers/rms_norm_layer.h"

namespace moesaic {

/// middle = x + attention(norm(x)); y = middle + feed_forward(norm(middle)). Kind mlp has no attention:
/// middle = x; without spec.residual y = feed_forward(x).
class Block {
  public:
    struct Saved {
        RmsNormLayer::Saved input_norm;
        Tensor attention_in;  // [T,H]
        AttentionLayer::Saved attention;
        Tensor middle;  // [T,H]; empty without attention
        RmsNormLayer::Saved post_norm;
        Tensor feed_forward_in;  // [T,H]; empty without its norm
        DenseFeedForward::Saved dense;
        MoELayer::Saved experts;
    };

    /// `exchange` may be null where the block has no experts.
    Block(const ModelSpec& spec, int layer, const Mesh& mesh, Exchange* exchange, const RotaryTable& rotary,
          ParameterStore& store);

    /// Collective over mesh.experts() where the block has experts. In phase `recompute` the routing in
    /// `saved` is followed again, all else computed anew to the same bits.
    [[nodiscard]] Tensor forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    /// Collective over mesh.experts() where the block has experts; starts context.gradients behind them.
    [[nodiscard]] Tensor backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const;

    /// What phase `recompute` cannot bring back: the router's decision and its statistics.
    [[nodiscard]] static Saved keep_decisions(Saved saved);

    /// Router::update; the block has experts.
    void update_router(StepContext& context, std::span<const i64> counts) const {
        experts_->update_router(context, counts);
    }

    [[nodiscard]] bool has_experts() const { return experts_.has_value(); }
    /// Only where the block has experts.
    [[nodiscard]] const Router& router() const { return experts_->router(); }

  private:
    /// What the feed-forward's norm reads, and the feed-forward itself.
    [[nodiscard]] LayerInput middle_of(const LayerInput& in, const Saved& saved) const;
    [[nodiscard]] LayerInput feed_forward_input(const LayerInput& in, const Saved& saved) const;
    [[nodiscard]] Tensor dense_forward(StepContext& context, const LayerInput& in, Saved& saved) const;
    [[nodiscard]] Tensor dense_backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                        Saved& saved) const;

    int layer_;
    std::optional<RmsNormLayer> input_norm_;
    std::optional<AttentionLayer> attention_;
    std::optional<RmsNormLayer> post_norm_;
    std::optional<DenseFeedForward> dense_;
    std::optional<MoELayer> experts_;
};

static_assert(Layer<Block>);

}  // namespace moesaic
