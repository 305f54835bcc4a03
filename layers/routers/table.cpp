// Every router by its name: a new one is a line here.
#include "layers/router.h"
#include "layers/routers/top_k_router.h"

namespace moesaic {

namespace {

template <class R>
std::unique_ptr<Router> make(const ModelSpec& spec, int layer, ParameterStore& store) {
    return std::make_unique<R>(spec, layer, store);
}

constexpr RouterEntry kRouters[] = {
    {"top_k", make<TopKRouter>},
};

}  // namespace

std::span<const RouterEntry> router_table() {
    return kRouters;
}

std::unique_ptr<Router> make_router(const ModelSpec& spec, int layer, ParameterStore& store) {
    std::string known;
    for (const RouterEntry& entry : kRouters) {
        if (entry.name == spec.router.kind) return entry.make(spec, layer, store);
        known += fmt::format("{}{}", known.empty() ? "" : ", ", entry.name);
    }
    throw UserError(fmt::format("model.moe.router.kind: there is no router '{}'; known are: {}",
                                spec.router.kind, known));
}

}  // namespace moesaic
