#include "layers/routers/top_k_router.h"

namespace moesaic {

TopKRouter::TopKRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : gate_(spec, layer, "mlp.gate.weight", store), scoring_(spec) {}

Routing TopKRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    return scoring_.route(context, in, gate_.logits(context, in.x), saved);
}

void TopKRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                          ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                          TensorView dx) const {
    gate_.backward(context, in.x, scoring_.d_logits(context, routing, d_weight, target, saved), dx);
}

}  // namespace moesaic
