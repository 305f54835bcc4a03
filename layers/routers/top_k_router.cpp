#include "layers/routers/top_k_router.h"

namespace moesaic {

TopKRouter::TopKRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : experts_(spec.experts),
      top_k_(spec.top_k),
      over_choices_(spec.router.normalize || spec.router.score == RouterScore::softmax_over_top_k) {
    Parameter gate;
    gate.name = block_parameter_name(layer, "mlp.gate.weight");
    gate.shape = {experts_, spec.width};
    gate.layer = layer;
    gate.init_std = spec.init_std;
    gate_ = store.declare(std::move(gate));
}

Routing TopKRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    Backend& backend = context.backend;
    const i64 tokens = in.x.rows();
    const DType real = accumulation_type(in.x.dtype);  // a bf16 model routes in f32
    Tensor logits = backend.allocate({tokens, experts_}, real);
    saved.probability = backend.allocate({tokens, experts_}, real);
    saved.log_sum_exp = backend.allocate({tokens}, real);
    Routing routing{backend.allocate({tokens, top_k_}, DType::int32),
                    backend.allocate({tokens, top_k_}, real)};
    backend.gemm(context.compute, {.a = in.x, .b = gate_.value(), .c = logits, .trans_b = true});
    backend.row_softmax(
        context.compute,
        {.logits = logits, .probability = saved.probability, .log_sum_exp = saved.log_sum_exp});
    if (over_choices_) {
        Tensor chosen = backend.allocate({tokens, top_k_}, real);  // logits
        Tensor log_sum_exp = backend.allocate({tokens}, real);     // of the chosen; nobody reads it
        backend.top_k(context.compute, {.scores = logits, .index = routing.expert, .value = chosen});
        backend.row_softmax(context.compute,
                            {.logits = chosen, .probability = routing.weight, .log_sum_exp = log_sum_exp});
    } else {
        backend.top_k(context.compute,
                      {.scores = saved.probability, .index = routing.expert, .value = routing.weight});
    }
    return routing;
}

void TopKRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                          ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                          TensorView dx) const {
    Backend& backend = context.backend;
    Tensor d_logits = backend.allocate(saved.probability.shape(), saved.probability.dtype());  // [T,E]
    backend.router_backward(context.compute, {.probability = saved.probability,
                                              .log_sum_exp = saved.log_sum_exp,
                                              .index = routing.expert,
                                              .weight = routing.weight,
                                              .d_weight = d_weight,
                                              .balance_factor = target.factor,
                                              .rows_per_object = target.rows_per_object,
                                              .over_choices = over_choices_,
                                              .z_scale = target.z_scale,
                                              .d_logits = d_logits});
    backend.gemm(context.compute, {.a = d_logits, .b = gate_.value(), .c = dx, .accumulate = true});
    backend.gemm(context.compute,
                 {.a = d_logits, .b = in.x, .c = gate_.grad(), .trans_a = true, .accumulate = true});
}

}  // namespace moesaic
