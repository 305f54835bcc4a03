#include "layers/routers/forced_routing.h"

namespace moesaic {

Routing forced_routing(StepContext& context, const LayerInput& in, i64 choices, RouterSaved& saved,
                       const std::function<void(std::span<i32> experts)>& choose) {
    Backend& backend = context.backend;
    Routing routing{backend.allocate({in.x.rows(), choices}, DType::int32),
                    backend.allocate({in.x.rows(), choices}, accumulation_type(in.x.dtype))};
    saved.host_choices.resize(static_cast<std::size_t>(routing.expert.elements()));
    choose(saved.host_choices);
    if (!saved.host_choices.empty()) {
        backend.copy(context.compute, view_of(saved.host_choices.data(), routing.expert.shape()),
                     routing.expert);
    }
    backend.fill(context.compute, 1.0 / static_cast<double>(choices), routing.weight);
    return routing;
}

}  // namespace moesaic
