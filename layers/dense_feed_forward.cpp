#include "layers/dense_feed_forward.h"

namespace moesaic {

DenseFeedForward::DenseFeedForward(const ModelSpec& spec, int layer, std::string_view prefix, i64 hidden,
                                   ParameterStore& store)
    : hidden_(hidden) {
    const auto projection = [&](std::string_view kind, Shape shape) {
        Parameter parameter;
        parameter.name = block_parameter_name(layer, fmt::format("{}.{}_proj.weight", prefix, kind));
        parameter.shape = shape;
        parameter.layer = layer;
        parameter.init_std = spec.init_std;
        return parameter;
    };
    gate_up_ =
        store.declare({projection("gate", {hidden_, spec.width}), projection("up", {hidden_, spec.width})},
                      {2 * hidden_, spec.width});
    down_ = store.declare(projection("down", {spec.width, hidden_}));
    store.used_in_products(gate_up_);
    store.used_in_products(down_);
}

Tensor DenseFeedForward::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    Backend& backend = context.backend;
    saved.gate_up = backend.allocate({in.x.rows(), 2 * hidden_}, in.x.dtype);
    saved.hidden = backend.allocate({in.x.rows(), hidden_}, in.x.dtype);
    Tensor y = backend.allocate(in.x.shape, in.x.dtype);
    backend.gemm(context.compute, {.a = in.x,
                                   .b = gate_up_.value(),
                                   .c = saved.gate_up,
                                   .trans_b = true,
                                   .packed_b = gate_up_.packed_transposed()});
    backend.swiglu(context.compute, {.x = saved.gate_up, .y = saved.hidden});
    backend.gemm(context.compute, {.a = saved.hidden,
                                   .b = down_.value(),
                                   .c = y,
                                   .trans_b = true,
                                   .packed_b = down_.packed_transposed()});
    return y;
}

Tensor DenseFeedForward::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                  Saved& saved) const {
    Backend& backend = context.backend;
    Tensor d_hidden = backend.allocate(saved.hidden.shape(), in.x.dtype);    // [T,F]
    Tensor d_gate_up = backend.allocate(saved.gate_up.shape(), in.x.dtype);  // [T,2F]
    Tensor dx = backend.allocate(in.x.shape, in.x.dtype);
    backend.gemm(context.compute,
                 {.a = dy, .b = down_.value(), .c = d_hidden, .packed_b = down_.packed_plain()});
    backend.gemm(context.compute,
                 {.a = dy, .b = saved.hidden, .c = down_.grad(), .trans_a = true, .accumulate = true});
    backend.swiglu_backward(context.compute, {.x = saved.gate_up, .dy = d_hidden, .dx = d_gate_up});
    backend.gemm(context.compute,
                 {.a = d_gate_up, .b = gate_up_.value(), .c = dx, .packed_b = gate_up_.packed_plain()});
    backend.gemm(context.compute,
                 {.a = d_gate_up, .b = in.x, .c = gate_up_.grad(), .trans_a = true, .accumulate = true});
    return dx;
}

}  // namespace moesaic
