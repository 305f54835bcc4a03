#include "layers/routers/gate.h"

namespace moesaic {

Gate::Gate(const ModelSpec& spec, int layer, std::string_view name, ParameterStore& store) {
    Parameter weight;
    weight.name = block_parameter_name(layer, name);
    weight.shape = {spec.experts, spec.width};
    weight.layer = layer;
    weight.init_std = spec.init_std;
    weight_ = store.declare(std::move(weight));
}

Tensor Gate::logits(StepContext& context, ConstTensorView x) const {
    const i64 experts = weight_.value().rows();
    Tensor logits = context.backend.allocate({x.rows(), experts}, accumulation_type(x.dtype));
    context.backend.gemm(context.compute, {.a = x, .b = weight_.value(), .c = logits, .trans_b = true});
    return logits;
}

void Gate::backward(StepContext& context, ConstTensorView x, ConstTensorView d_logits, TensorView dx) const {
    context.backend.gemm(context.compute, {.a = d_logits, .b = weight_.value(), .c = dx, .accumulate = true});
    context.backend.gemm(context.compute,
                         {.a = d_logits, .b = x, .c = weight_.grad(), .trans_a = true, .accumulate = true});
}

}  // namespace moesaic
