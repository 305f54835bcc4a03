#include "layers/shared_expert.h"

namespace moesaic {

SharedExpert::SharedExpert(const ModelSpec& spec, int layer, ParameterStore& store)
    : feed_forward_(spec, layer, "mlp.shared_expert", spec.shared_hidden(), store) {
    if (!spec.shared_gate) return;
    Parameter gate;
    gate.name = block_parameter_name(layer, "mlp.shared_expert_gate.weight");
    gate.shape = {1, spec.width};
    gate.layer = layer;
    gate.init_std = spec.init_std;
    gate_ = store.declare(std::move(gate));
}

void SharedExpert::compute(StepContext& context, const LayerInput& in, Saved& saved) const {
    saved.result = feed_forward_.forward(context, in, saved.feed_forward);
    if (!gate_) return;
    saved.logit = context.backend.allocate({in.x.rows(), 1}, accumulation_type(in.x.dtype));
    context.backend.gemm(context.compute, {.a = in.x, .b = gate_.value(), .c = saved.logit, .trans_b = true});
}

void SharedExpert::add_to(StepContext& context, const Saved& saved, TensorView y) const {
    if (gate_) {
        context.backend.sigmoid_gate(context.compute, {.logit = saved.logit, .rows = saved.result, .y = y});
    } else {
        context.backend.add(context.compute, saved.result, y);
    }
}

Tensor SharedExpert::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                              Saved& saved) const {
    if (!gate_) return feed_forward_.backward(context, in, dy, saved.feed_forward);
    Backend& backend = context.backend;
    Tensor d_logit = backend.allocate(saved.logit.shape(), saved.logit.dtype());
    const TensorView d_result = saved.result;  // in place
    backend.sigmoid_gate_backward(
        context.compute,
        {.logit = saved.logit, .rows = saved.result, .dy = dy, .d_rows = d_result, .d_logit = d_logit});
    Tensor dx = feed_forward_.backward(context, in, d_result, saved.feed_forward);
    backend.gemm(context.compute, {.a = d_logit, .b = gate_.value(), .c = dx, .accumulate = true});
    backend.gemm(context.compute,
                 {.a = d_logit, .b = in.x, .c = gate_.grad(), .trans_a = true, .accumulate = true});
    return dx;
}

}  // namespace moesaic
