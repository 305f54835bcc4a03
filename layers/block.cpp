#include "layers/block.h"

namespace moesaic {

Block::Block(const ModelSpec& spec, int layer, const Mesh& mesh, Exchange* exchange,
             const RotaryTable& rotary, ParameterStore& store)
    : input_norm_(block_parameter_name(layer, "input_layernorm.weight"), layer, spec.width, spec.norm_eps,
                  store),
      attention_(spec, layer, rotary, store),
      post_norm_(block_parameter_name(layer, "post_attention_layernorm.weight"), layer, spec.width,
                 spec.norm_eps, store) {
    if (spec.has_experts(layer)) {
        experts_.emplace(spec, layer, mesh, *exchange, store);
    } else {
        dense_.emplace(spec, layer, store);
    }
}

Tensor Block::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    saved.attention_in = input_norm_.forward(context, in, saved.input_norm);
    const LayerInput attention_in{saved.attention_in, in.seq_len, in.first_key};
    saved.middle = attention_.forward(context, attention_in, saved.attention);
    context.backend.add(context.compute, in.x, saved.middle);

    const LayerInput middle{saved.middle, in.seq_len};
    saved.feed_forward_in = post_norm_.forward(context, middle, saved.post_norm);
    const LayerInput feed_forward_in{saved.feed_forward_in, in.seq_len};
    Tensor y = experts_ ? experts_->forward(context, feed_forward_in, saved.experts)
                        : dense_->forward(context, feed_forward_in, saved.dense);
    context.backend.add(context.compute, saved.middle, y);
    return y;
}

Block::Saved Block::keep_decisions(Saved saved) {
    Saved kept;
    kept.experts.router = std::move(saved.experts.router);
    kept.experts.routing = std::move(saved.experts.routing);
    kept.experts.plan = std::move(saved.experts.plan);
    return kept;
}

Tensor Block::backward(StepContext& context, const LayerInput& in, ConstTensorView dy, Saved& saved) const {
    const LayerInput feed_forward_in{saved.feed_forward_in, in.seq_len};
    const LayerInput middle{saved.middle, in.seq_len};
    const LayerInput attention_in{saved.attention_in, in.seq_len, in.first_key};
    Tensor d_feed_forward_in = experts_ ? experts_->backward(context, feed_forward_in, dy, saved.experts)
                                        : dense_->backward(context, feed_forward_in, dy, saved.dense);
    Tensor d_middle = post_norm_.backward(context, middle, d_feed_forward_in, saved.post_norm);
    context.backend.add(context.compute, dy, d_middle);

    const Tensor d_attention_in = attention_.backward(context, attention_in, d_middle, saved.attention);
    Tensor dx = input_norm_.backward(context, in, d_attention_in, saved.input_norm);
    context.backend.add(context.compute, d_middle, dx);
    return dx;
}

}  // namespace moesaic
