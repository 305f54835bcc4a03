#include "layers/output_head.h"

namespace moesaic {

OutputHead::OutputHead(const ModelSpec& spec, const Weight& tied, ParameterStore& store)
    : vocabulary_(spec.vocabulary), weight_(tied) {
    if (!weight_) {
        Parameter weight;
        weight.name = "lm_head.weight";
        weight.shape = {spec.vocabulary, spec.width};
        weight.init_std = spec.init_std;
        weight_ = store.declare(std::move(weight));
    }
    store.used_in_products(weight_);
}

Tensor OutputHead::logits(StepContext& context, ConstTensorView x) const {
    Tensor logits = context.backend.allocate({x.rows(), vocabulary_}, accumulation_type(x.dtype));
    context.backend.gemm(context.compute, {.a = x,
                                           .b = weight_.value(),
                                           .c = logits,
                                           .trans_b = true,
                                           .packed_b = weight_.packed_transposed()});
    return logits;
}

Tensor OutputHead::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    saved.logits = logits(context, in.x);
    saved.log_sum_exp = context.backend.allocate({in.x.rows()}, DType::f64);
    Tensor loss = context.backend.allocate({in.x.rows()}, DType::f64);
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
    backend.cross_entropy_backward(context.compute, {.logits = saved.logits,
                                                     .target = saved.target,
                                                     .log_sum_exp = saved.log_sum_exp,
                                                     .d_logits = d_logits,
                                                     .scale = saved.scale});
    Tensor dx = backend.allocate(in.x.shape, in.x.dtype);
    backend.gemm(context.compute,
                 {.a = d_logits, .b = weight_.value(), .c = dx, .packed_b = weight_.packed_plain()});
    backend.gemm(context.compute,
                 {.a = d_logits, .b = in.x, .c = weight_.grad(), .trans_a = true, .accumulate = true});
    return dx;
}

}  // namespace moesaic
