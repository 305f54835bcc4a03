#include "layers/routers/nearest_prototype_router.h"

namespace moesaic {

NearestPrototypeRouter::NearestPrototypeRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : experts_(spec.experts), learns_(spec.router.learn_prototypes), scoring_(spec) {
    Parameter prototypes;
    prototypes.name = block_parameter_name(layer, "mlp.prototypes.weight");
    prototypes.shape = {experts_, spec.width};
    prototypes.layer = layer;
    prototypes.init_std = 1;  // the router's input is normalised: elements of about this size
    prototypes.frozen = !learns_;
    prototypes_ = store.declare(std::move(prototypes));
}

Routing NearestPrototypeRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    Backend& backend = context.backend;
    Tensor logits = backend.allocate({in.x.rows(), experts_}, accumulation_type(in.x.dtype));
    backend.prototype_logits(context.compute,
                             {.x = in.x, .prototype = prototypes_.value(), .logits = logits});
    if (!learns_) {
        Routing routing{scoring_.choose_by(context, logits),
                        backend.allocate({in.x.rows(), 1}, logits.dtype())};
        backend.fill(context.compute, 1, routing.weight);
        return routing;
    }
    scoring_.score(context, std::move(logits), saved);
    return scoring_.weigh(context, scoring_.choose_by(context, saved.logits), saved);
}

void NearestPrototypeRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                                      ConstTensorView d_weight, const BalanceTarget& target,
                                      RouterSaved& saved, TensorView dx) const {
    if (!learns_) return;
    const Tensor d_logits = scoring_.d_logits(context, routing, d_weight, target, saved);
    context.backend.prototype_logits_backward(context.compute, {.x = in.x,
                                                                .prototype = prototypes_.value(),
                                                                .d_logits = d_logits,
                                                                .dx = dx,
                                                                .d_prototype = prototypes_.grad()});
}

}  // namespace moesaic
