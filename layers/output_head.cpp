#include "layers/output_head.h"

namespace moesaic {

OutputHead::OutputHead(const ModelSpec& spec) : outputs_(spec.head_outputs()), loss_(spec.loss) {}

OutputHead::OutputHead(const ModelSpec& spec, const Weight& tied, ParameterStore& store)
    : outputs_(spec.head_outputs()), loss_(spec.loss), weight_(tied) {
    if (!weight_) {
        Parameter weight;
        weight.name = "lm_head.weight";
        weight.shape = {outputs_, spec.width};
        weight.init_std = spec.init_std;
        weight_ = store.declare(std::move(weight));
    }
    store.used_in_products(weight_);
}

Tensor OutputHead::logits(StepContext& context, ConstTensorView x) const {
    Tensor logits = context.backend.allocate({x.rows(), outputs_}, accumulation_type(x.dtype));
    if (!weight_) {
        context.backend.convert(context.compute, x, logits);
        return logits;
    }
    context.backend.gemm(context.compute, {.a = x,
                                           .b = weight_.value(),
                                           .c = logits,
                                           .trans_b = true,
                                           .packed_b = weight_.packed_transposed()});
    return logits;
}

Tensor OutputHead::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    saved.logits = logits(context, in.x);
    Tensor loss = context.backend.allocate({in.x.rows()}, DType::f64);
    if (loss_ == LossKind::squared_error) {
        context.backend.squared_error(context.compute,
                                      {.output = saved.logits, .target = saved.values, .loss = loss});
        return loss;
    }
    saved.log_sum_exp = context.backend.allocate({in.x.rows()}, DType::f64);
    saved.margin = context.backend.allocate({in.x.rows()}, DType::f64);
    if (context.phase == Phase::evaluate) {
        saved.wrong = context.backend.allocate({in.x.rows()}, DType::int32);
    }
    context.backend.cross_entropy(context.compute, {.logits = saved.logits,
                                                    .target = saved.target,
                                                    .loss = loss,
                                                    .log_sum_exp = saved.log_sum_exp,
                                                    .wrong = saved.wrong,
                                                    .margin = saved.margin});
    return loss;
}

Tensor OutputHead::backward(StepContext& context, const LayerInput& in, ConstTensorView, Saved& saved) const {
    Backend& backend = context.backend;
    const TensorView d_logits = saved.logits;  // [T,V], in place
    if (loss_ == LossKind::squared_error) {
        backend.squared_error_backward(
            context.compute,
            {.output = saved.logits, .target = saved.values, .d_output = d_logits, .scale = saved.scale});
    } else {
        backend.cross_entropy_backward(context.compute, {.logits = saved.logits,
                                                         .target = saved.target,
                                                         .log_sum_exp = saved.log_sum_exp,
                                                         .d_logits = d_logits,
                                                         .scale = saved.scale});
    }
    if (!weight_) return std::move(saved.logits);
    Tensor dx = backend.allocate(in.x.shape, in.x.dtype);
    backend.gemm(context.compute,
                 {.a = d_logits, .b = weight_.value(), .c = dx, .packed_b = weight_.packed_plain()});
    backend.gemm(context.compute,
                 {.a = d_logits, .b = in.x, .c = weight_.grad(), .trans_a = true, .accumulate = true});
    return dx;
}

}  // namespace moesaic
