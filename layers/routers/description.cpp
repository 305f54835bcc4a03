// What a router does, in a line.
#include "layers/router.h"

namespace moesaic {

namespace {

std::string weights_of(const ModelSpec& spec) {
    const RouterSpec& router = spec.router;
    if (!router_traits(router).learns)
        return router.kind == "nearest_prototype" ? "weight 1" : fmt::format("weights 1/{}", spec.top_k);
    const bool over_choices = router.normalize || router.score == RouterScore::softmax_over_top_k;
    std::string text = router.score == RouterScore::sigmoid ? "sigmoid" : "softmax";
    text += over_choices ? " weights that sum to " : " weights";
    if (over_choices) return text + fmt::format("{}", router.scale);
    return router.scale == 1 ? text : text + fmt::format(" times {}", router.scale);
}

/// What this kind alone has.
std::string particulars(const RouterSpec& router) {
    std::string text;
    if (router.groups > 1) {
        text = fmt::format(", {} of {} groups by {}", router.top_groups, router.groups,
                           router.group_score == GroupScore::top1 ? "top1" : "top2_sum");
    }
    if (router.kind == "sigmoid_bias") {
        text += fmt::format(", bias rate {}{}", router.bias_rate, router.bias_recentre ? " recentred" : "");
    } else if (router.kind == "switch" && router.jitter > 0) {
        text += fmt::format(", jitter {}", router.jitter);
    } else if (router.kind == "sinkhorn") {
        text += fmt::format(", {} iterations a {}", router.sinkhorn_iterations,
                            router.sinkhorn_per_sequence ? "sequence" : "micro-batch");
    } else if (router.kind == "hash") {
        text += fmt::format(", hash seed {}", router.hash_seed);
    } else if (router.kind == "nearest_prototype") {
        text += router.learn_prototypes ? ", learnt prototypes" : ", fixed prototypes";
    } else if (router.kind == "replay") {
        text += ", trace " + router.trace;
    } else if (router.kind == "uniform") {
        text += ", traffic " + router.traffic;
    }
    return text;
}

}  // namespace

std::string describe_router(const ModelSpec& spec) {
    const RouterTraits traits = router_traits(spec.router);
    const std::string who =
        traits.chooses_tokens ? fmt::format("{} experts take ceil(tokens * {} / {}) tokens of each sequence",
                                            spec.experts, spec.top_k, spec.experts)
                              : fmt::format("{} of {} experts", spec.top_k, spec.experts);
    const char* losses = !traits.learns          ? "; nothing is learnt, no balance loss"
                         : traits.chooses_tokens ? "; no load-balance loss"
                                                 : "";
    return fmt::format("{}, {}, {}{}{}", spec.router.kind, who, weights_of(spec), particulars(spec.router),
                       losses);
}

}  // namespace moesaic
