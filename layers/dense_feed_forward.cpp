#include "layers/dense_feed_forward.h"

namespace moesaic {

namespace {

/// One group's gradient [1,M,N] as a matrix.
TensorView matrix(TensorView group) {
    return group.reshaped({group.shape[1], group.shape[2]});
}

}  // namespace

DenseFeedForward::DenseFeedForward(const ModelSpec& spec, int layer, std::string_view prefix, i64 hidden,
                                   ParameterStore& store)
    : hidden_(hidden), activation_(spec.activation) {
    const i64 halves = activation_halves(activation_);
    const auto declared = [&](std::string_view kind, Shape shape) {
        Parameter parameter;
        parameter.name = block_parameter_name(layer, fmt::format("{}.{}.weight", prefix, kind));
        parameter.shape = shape;
        parameter.layer = layer;
        parameter.init_std = spec.init_std;
        return parameter;
    };
    std::vector<Parameter> up;
    if (halves == 2) up.push_back(declared("gate_proj", {hidden_, spec.width}));
    up.push_back(declared("up_proj", {hidden_, spec.width}));
    up_ = store.declare(std::move(up), {1, halves * hidden_, spec.width});
    down_ = store.declare({declared("down_proj", {spec.width, hidden_})}, {1, spec.width, hidden_});
    if (activation_ == ActivationKind::prelu) {
        Parameter slope = declared("act_fn", {1});
        slope.init_std = 0;
        slope.init_constant = kInitialSlope;
        slope.folds_itself = true;
        slope_ = store.declare(std::move(slope));
    }
    store.used_in_products(up_, halves);
    store.used_in_products(down_);
}

Tensor DenseFeedForward::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    Backend& backend = context.backend;
    const i64 tokens = in.x.rows();
    saved.preactivation = backend.allocate({tokens, activation_halves(activation_) * hidden_}, in.x.dtype);
    saved.hidden = backend.allocate({tokens, hidden_}, in.x.dtype);
    Tensor y = backend.allocate(in.x.shape, in.x.dtype);
    backend.grouped_gemm_activation(
        context.compute,
        {.a = in.x,
         .b = up_.value(),
         .c = saved.preactivation,
         .rows_per_group = {&tokens, 1},
         .trans_b = true,
         .packed_b = up_.packed_transposed()},
        {.kind = activation_, .x = {}, .y = saved.hidden, .slope = slope_.value_or_empty()});
    backend.grouped_gemm(context.compute, {.a = saved.hidden,
                                           .b = down_.value(),
                                           .c = y,
                                           .rows_per_group = {&tokens, 1},
                                           .trans_b = true,
                                           .packed_b = down_.packed_transposed()});
    return y;
}

Tensor DenseFeedForward::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const {
    Backend& backend = context.backend;
    const i64 tokens = in.x.rows();
    const TensorView d_preactivation = saved.preactivation;  // [T,hF], in its place
    Tensor dx = backend.allocate(in.x.shape, in.x.dtype);
    backend.gemm(
        context.compute,
        {.a = dy, .b = saved.hidden, .c = matrix(down_.grad()), .trans_a = true, .accumulate = true});
    backend.grouped_gemm_activation_backward(context.compute,
                                             {.a = dy,
                                              .b = down_.value(),
                                              .c = {},
                                              .rows_per_group = {&tokens, 1},
                                              .packed_b = down_.packed_plain()},
                                             {.kind = activation_,
                                              .x = saved.preactivation,
                                              .dy = {},
                                              .dx = d_preactivation,
                                              .slope = slope_.value_or_empty(),
                                              .d_slope = slope_.sum_or_empty()});
    backend.grouped_gemm(context.compute, {.a = d_preactivation,
                                           .b = up_.value(),
                                           .c = dx,
                                           .rows_per_group = {&tokens, 1},
                                           .packed_b = up_.packed_plain()});
    backend.gemm(
        context.compute,
        {.a = d_preactivation, .b = in.x, .c = matrix(up_.grad()), .trans_a = true, .accumulate = true});
    return dx;
}

}  // namespace moesaic
