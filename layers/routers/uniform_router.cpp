#include "layers/routers/uniform_router.h"

#include "layers/routers/forced_routing.h"

namespace moesaic {

UniformRouter::UniformRouter(const ModelSpec& spec, int layer, ParameterStore&)
    : layer_(layer), top_k_(spec.top_k), traffic_(make_traffic(spec.router.traffic, traffic_shape(spec))) {}

Routing UniformRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    return forced_routing(context, in, top_k_, saved, [&](std::span<i32> experts) {
        traffic_->route(context.step, layer_, in.first_token, in.x.rows(), experts);
    });
}

PatternShape traffic_shape(const ModelSpec& spec) {
    return {.experts = spec.experts,
            .top_k = spec.top_k,
            .ranks = 1,
            .tokens_per_rank = spec.micro_tokens(),
            .seed = spec.router.seed};
}

}  // namespace moesaic
