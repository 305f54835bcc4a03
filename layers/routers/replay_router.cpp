#include "layers/routers/replay_router.h"

#include "layers/routers/forced_routing.h"

namespace moesaic {

ReplayRouter::ReplayRouter(const ModelSpec& spec, int layer, ParameterStore&)
    : top_k_(spec.top_k),
      expert_layer_((layer + 1) / spec.every - 1),
      trace_(spec.router.trace, spec.expert_layers(), spec.top_k, spec.experts) {}

Routing ReplayRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    const i64 step = std::max<i64>(context.step, 1);
    return forced_routing(context, in, top_k_, saved, [&](std::span<i32> experts) {
        trace_.read(step, expert_layer_, in.first_token, experts);
    });
}

}  // namespace moesaic
