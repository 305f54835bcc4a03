#include "layers/block.h"

#include "comm/gradient_sync.h"

namespace moesaic {

Block::Block(const ModelSpec& spec, int layer, const Mesh& mesh, Exchange* exchange,
             const RotaryTable& rotary, ParameterStore& store)
    : layer_(layer) {
    const auto norm = [&](std::optional<RmsNormLayer>& place, std::string_view name) {
        place.emplace(block_parameter_name(layer, name), layer, spec.width, spec.norm_eps, store);
    };
    if (spec.kind == ModelKind::transformer) {
        norm(input_norm_, "input_layernorm.weight");
        attention_.emplace(spec, layer, rotary, store);
    }
    if (spec.residual) norm(post_norm_, attention_ ? "post_attention_layernorm.weight" : "norm.weight");
    if (spec.has_experts(layer)) {
        experts_.emplace(spec, layer, mesh, *exchange, store);
    } else {
        dense_.emplace(spec, layer, store);
    }
}

LayerInput Block::middle_of(const LayerInput& in, const Saved& saved) const {
    return attention_ ? in.with(saved.middle) : in;
}

LayerInput Block::feed_forward_input(const LayerInput& in, const Saved& saved) const {
    return post_norm_ ? in.with(saved.feed_forward_in) : middle_of(in, saved);
}

Tensor Block::dense_forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    const WorkScope scope(context.timeline, context.compute, WorkPhase::feed_forward, layer_);
    return dense_->forward(context, in, saved.dense);
}

Tensor Block::dense_backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                             Saved& saved) const {
    const WorkScope scope(context.timeline, context.compute, WorkPhase::feed_forward, layer_, true);
    return dense_->backward(context, in, dy, saved.dense);
}

Tensor Block::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    if (attention_) {
        const WorkScope scope(context.timeline, context.compute, WorkPhase::attention, layer_);
        saved.attention_in = input_norm_->forward(context, in, saved.input_norm);
        const LayerInput attention_in = in.with(saved.attention_in);
        saved.middle = attention_->forward(context, attention_in, saved.attention);
        context.backend.add(context.compute, in.x, saved.middle);
    }
    const LayerInput middle = middle_of(in, saved);
    if (post_norm_) saved.feed_forward_in = post_norm_->forward(context, middle, saved.post_norm);
    const LayerInput feed_forward_in = feed_forward_input(in, saved);
    Tensor y = experts_ ? experts_->forward(context, feed_forward_in, saved.experts)
                        : dense_forward(context, feed_forward_in, saved);
    if (post_norm_) context.backend.add(context.compute, middle.x, y);
    return y;
}

Block::Saved Block::keep_decisions(Saved saved) {
    Saved kept;
    kept.experts.router = std::move(saved.experts.router);
    kept.experts.routing = std::move(saved.experts.routing);
    kept.experts.kept = std::move(saved.experts.kept);
    kept.experts.of_slices = std::move(saved.experts.of_slices);
    kept.experts.plan = std::move(saved.experts.plan);
    return kept;
}

Tensor Block::backward(StepContext& context, const LayerInput& in, ConstTensorView dy, Saved& saved) const {
    const LayerInput feed_forward_in = feed_forward_input(in, saved);
    Tensor d_feed_forward_in = experts_ ? experts_->backward(context, feed_forward_in, dy, saved.experts)
                                        : dense_backward(context, feed_forward_in, dy, saved);
    if (context.gradients) context.gradients->start(context);  // rows have travelled; attention needs nobody
    if (!post_norm_) return d_feed_forward_in;
    Tensor d_middle = post_norm_->backward(context, middle_of(in, saved), d_feed_forward_in, saved.post_norm);
    context.backend.add(context.compute, dy, d_middle);
    if (!attention_) return d_middle;

    const WorkScope scope(context.timeline, context.compute, WorkPhase::attention, layer_, true);
    const LayerInput attention_in = in.with(saved.attention_in);
    const Tensor d_attention_in = attention_->backward(context, attention_in, d_middle, saved.attention);
    Tensor dx = input_norm_->backward(context, in, d_attention_in, saved.input_norm);
    context.backend.add(context.compute, d_middle, dx);
    return dx;
}

}  // namespace moesaic
