// Every router by its name: a new one is a line here.
#include "layers/router.h"
#include "layers/routers/expert_choice_router.h"
#include "layers/routers/hash_router.h"
#include "layers/routers/nearest_prototype_router.h"
#include "layers/routers/noisy_top_k_router.h"
#include "layers/routers/replay_router.h"
#include "layers/routers/sigmoid_bias_router.h"
#include "layers/routers/sinkhorn_router.h"
#include "layers/routers/switch_router.h"
#include "layers/routers/top_k_router.h"
#include "layers/routers/uniform_router.h"

namespace moesaic {

namespace {

template <class R>
std::unique_ptr<Router> make(const ModelSpec& spec, int layer, ParameterStore& store) {
    return std::make_unique<R>(spec, layer, store);
}

constexpr RouterEntry kRouters[] = {
    {"top_k", make<TopKRouter>, {}},
    {"noisy_top_k", make<NoisyTopKRouter>, {.matrices = 2}},
    {"switch", make<SwitchRouter>, {}},
    {"sigmoid_bias", make<SigmoidBiasRouter>, {}},
    {"group_limited", make<TopKRouter>, {}},
    {"sinkhorn", make<SinkhornRouter>, {}},
    {"expert_choice", make<ExpertChoiceRouter>, {.chooses_tokens = true}},
    {"hash", make<HashRouter>, {.matrices = 0, .learns = false}},
    {"uniform", make<UniformRouter>, {.matrices = 0, .learns = false}},
    {"nearest_prototype", make<NearestPrototypeRouter>, {.has_logits = false}},
    {"replay", make<ReplayRouter>, {.matrices = 0, .learns = false}},
};

}  // namespace

std::span<const RouterEntry> router_table() {
    return kRouters;
}

const RouterEntry& router_entry(std::string_view kind) {
    std::string known;
    for (const RouterEntry& entry : kRouters) {
        if (entry.name == kind) return entry;
        known += fmt::format("{}{}", known.empty() ? "" : ", ", entry.name);
    }
    throw UserError(
        fmt::format("model.moe.router.kind: there is no router '{}'; known are: {}", kind, known));
}

RouterTraits router_traits(const RouterSpec& router) {
    RouterTraits traits = router_entry(router.kind).traits;
    if (router.kind == "nearest_prototype") traits.learns = router.learn_prototypes;
    return traits;
}

std::unique_ptr<Router> make_router(const ModelSpec& spec, int layer, ParameterStore& store) {
    return router_entry(spec.router.kind).make(spec, layer, store);
}

}  // namespace moesaic
