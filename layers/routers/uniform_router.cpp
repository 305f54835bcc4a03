#include "layers/routers/uniform_router.h"

#include "layers/routers/forced_routing.h"

namespace moesaic {

UniformRouter::UniformRouter(const ModelSpec& spec, int, ParameterStore&)
    : experts_(spec.experts), top_k_(spec.top_k) {}

Routing UniformRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    return forced_routing(context, in, top_k_, saved, [&](std::span<i32> experts) {
        i64 next = in.first_token * top_k_;
        for (i32& expert : experts) expert = static_cast<i32>(next++ % experts_);
    });
}

}  // namespace moesaic
