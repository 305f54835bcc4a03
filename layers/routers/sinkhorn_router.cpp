#include "layers/routers/sinkhorn_router.h"

#include <algorithm>

namespace moesaic {

SinkhornRouter::SinkhornRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : iterations_(spec.router.sinkhorn_iterations),
      per_sequence_(spec.router.sinkhorn_per_sequence),
      gate_(spec, layer, "mlp.gate.weight", store),
      scoring_(spec) {}

Routing SinkhornRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    scoring_.score(context, gate_.logits(context, in.x), saved);
    Tensor expert = context.phase == Phase::evaluate ? scoring_.choose(context, saved)
                                                     : choose_balanced(context, in, saved);
    return scoring_.weigh(context, std::move(expert), saved);
}

Tensor SinkhornRouter::choose_balanced(StepContext& context, const LayerInput& in,
                                       const RouterSaved& saved) const {
    const Shape shape = saved.logits.shape();
    Tensor scores = context.backend.allocate(shape, saved.logits.dtype());
    Tensor work = context.backend.allocate(shape, DType::f64);
    context.backend.sinkhorn(context.compute,
                             {.logits = saved.logits,
                              .scores = scores,
                              .work = work,
                              .rows_per_object = per_sequence_ ? in.seq_len : std::max<i64>(shape.rows(), 1),
                              .iterations = iterations_});
    return scoring_.choose_by(context, scores);
}

void SinkhornRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                              ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                              TensorView dx) const {
    gate_.backward(context, in.x, scoring_.d_logits(context, routing, d_weight, target, saved), dx);
}

}  // namespace moesaic
