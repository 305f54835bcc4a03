#include "runtime/config/validate_router.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

namespace moesaic {

namespace {

/// An option that means something for some kinds of routers only.
struct KindOption {
    const char* key;  // below model.moe.router
    Choices kinds;
};

/// Whoever sets such an option for another kind expects an effect that it would not have.
void check_options(LoadedConfig& loaded) {
    static const std::vector<KindOption> kOptions{
        {"groups", {"group_limited", "sigmoid_bias"}},
        {"top_groups", {"group_limited", "sigmoid_bias"}},
        {"group_score", {"group_limited", "sigmoid_bias"}},
        {"bias_rate", {"sigmoid_bias"}},
        {"bias_recentre", {"sigmoid_bias"}},
        {"jitter", {"switch"}},
        {"sinkhorn_iterations", {"sinkhorn"}},
        {"sinkhorn_scope", {"sinkhorn"}},
        {"prototypes", {"nearest_prototype"}},
        {"allow_noncausal", {"expert_choice"}},
        {"hash_seed", {"hash"}},
        {"trace", {"replay"}},
        {"traffic", {"uniform"}},
        {"scale",
         {"top_k", "noisy_top_k", "switch", "sigmoid_bias", "group_limited", "sinkhorn", "expert_choice"}},
    };
    const std::string& kind = loaded.config.model.moe.router.kind;
    const Config untouched;
    const std::map<std::string, std::string> values = flatten(loaded.config), defaults = flatten(untouched);
    for (const KindOption& option : kOptions) {
        const std::string key = std::string("model.moe.router.") + option.key;
        if (is_one_of(kind, option.kinds) || values.at(key) == defaults.at(key)) continue;
        loaded.complain(key, fmt::format("has no meaning for kind {}", kind),
                        fmt::format("leave it out, or one of the kinds {}", fmt::join(option.kinds, ", ")));
    }
}

void check_score(LoadedConfig& loaded) {
    RouterConfig& router = loaded.config.model.moe.router;
    const bool given = loaded.where.contains("model.moe.router.score");
    if (router.kind == "sigmoid_bias" && !given) router.score = "sigmoid";  // it has no other
    Choices allowed{"softmax", "softmax_over_top_k", "sigmoid"};
    if (router.kind == "sigmoid_bias") allowed = {"sigmoid"};
    if (router.kind == "noisy_top_k") allowed = {"softmax", "softmax_over_top_k"};
    const Choices only_softmax{"switch", "expert_choice", "nearest_prototype", "hash", "uniform", "replay"};
    if (is_one_of(router.kind, only_softmax)) allowed = {"softmax"};
    if (is_one_of(router.score, allowed)) return;
    loaded.complain("model.moe.router.score",
                    fmt::format("{} does not go with kind {}", router.score, router.kind),
                    fmt::format("one of: {}", fmt::join(allowed, ", ")));
}

void check_choices(LoadedConfig& loaded, Purpose purpose) {
    const MoeConfig& moe = loaded.config.model.moe;
    const std::string& kind = moe.router.kind;
    if (is_one_of(kind, {"switch", "nearest_prototype"}) && moe.top_k != 1) {
        loaded.complain("model.moe.top_k",
                        fmt::format("kind {} sends a token to one expert, not {}", kind, moe.top_k), "1");
    }
    const Choices without_sum{"switch", "expert_choice", "nearest_prototype"};
    if (is_one_of(kind, without_sum) && moe.router.normalize.value_or(false)) {
        loaded.complain("model.moe.router.normalize",
                        fmt::format("weights of kind {} are probabilities, which need not sum to 1", kind),
                        "auto or false");
        return;
    }
    if (is_one_of(kind, {"hash", "uniform", "replay"}) || is_one_of(kind, without_sum)) return;
    const bool over_choices = moe.router.score == "softmax_over_top_k";
    if (moe.top_k == 1 && (over_choices || moe.normalized()) && purpose == Purpose::training) {
        loaded.complain(over_choices ? "model.moe.router.score" : "model.moe.router.normalize",
                        "with top_k 1 a normalised weight is always 1 and the router's gradient is zero: it "
                        "cannot be trained",
                        "score: softmax with normalize: false, or top_k 2");
    }
}

void check_groups(LoadedConfig& loaded) {
    const MoeConfig& moe = loaded.config.model.moe;
    const RouterConfig& router = moe.router;
    if (!is_one_of(router.kind, {"group_limited", "sigmoid_bias"})) return;
    if (router.kind == "group_limited" && router.groups == 1) {
        loaded.complain("model.moe.router.groups", "kind group_limited needs several groups",
                        "a divisor of model.moe.experts, e.g. the number of nodes");
        return;
    }
    if (moe.experts % router.groups != 0) {
        loaded.complain("model.moe.router.groups",
                        fmt::format("{} groups cannot share {} experts evenly", router.groups, moe.experts),
                        "a divisor of model.moe.experts");
        return;
    }
    if (router.top_groups > router.groups) {
        loaded.complain("model.moe.router.top_groups",
                        fmt::format("{} of {} groups", router.top_groups, router.groups),
                        "at most model.moe.router.groups");
    } else if (router.top_groups * (moe.experts / router.groups) < moe.top_k) {
        loaded.complain("model.moe.router.top_groups",
                        fmt::format("{} groups of {} experts hold fewer than top_k = {}", router.top_groups,
                                    moe.experts / router.groups, moe.top_k),
                        "more groups, or a smaller model.moe.top_k");
    }
}

void check_expert_choice(LoadedConfig& loaded) {
    const Config& config = loaded.config;
    if (config.model.moe.router.kind != "expert_choice") return;
    if (config.task.kind == "lm" && !config.model.moe.router.allow_noncausal) {
        loaded.complain(
            "model.moe.router.kind",
            "with expert_choice later tokens decide which experts earlier ones get: a causal "
            "language model would learn from its own future, and its losses would mislead",
            "another kind (sigmoid_bias balances without a loss too), or allow_noncausal: true to "
            "do it all the same");
    }
    if (config.metrics.record_routing != "none") {
        loaded.complain("metrics.record_routing",
                        "a trace has the experts that each token chose, and with expert_choice tokens choose "
                        "none: no replay could follow it",
                        "none, or another model.moe.router.kind");
    }
    if (!config.model.moe.capacity.dropless) {
        loaded.complain("model.moe.capacity", "experts that choose tokens are never too full", "dropless");
    }
}

void check_trace(LoadedConfig& loaded) {
    const RouterConfig& router = loaded.config.model.moe.router;
    if (router.kind != "replay") return;
    std::error_code ignored;
    if (router.trace == "none") {
        loaded.complain("model.moe.router.trace", "kind replay needs a trace",
                        "the file that a run with metrics.record_routing: FILE wrote");
    } else if (!std::filesystem::is_regular_file(router.trace, ignored)) {
        loaded.complain("model.moe.router.trace", fmt::format("'{}' is no file", router.trace),
                        "the file that a run with metrics.record_routing: FILE wrote");
    }
}

}  // namespace

bool is_one_of(const std::string& word, const Choices& words) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

void check_router(LoadedConfig& loaded, Purpose purpose) {
    check_options(loaded);
    check_score(loaded);
    check_choices(loaded, purpose);
    check_groups(loaded);
    check_expert_choice(loaded);
    check_trace(loaded);
}

}  // namespace moesaic
