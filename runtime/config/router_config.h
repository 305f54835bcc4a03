// The section model.moe.router.
#pragma once

#include <optional>

#include "runtime/config/limits.h"

namespace moesaic {

/// How tokens choose experts; which options belong to which kind: validate_router.cpp.
struct RouterConfig {
    std::string kind = "top_k", score = "softmax";
    std::optional<bool> normalize;
    double scale = 1;
    i64 groups = 1, top_groups = 1;
    std::string group_score = "top1";
    double bias_rate = 0.001;
    bool bias_recentre = false;
    double jitter = 0;
    i64 sinkhorn_iterations = 8;
    std::string sinkhorn_scope = "sequence", prototypes = "learnt";
    bool allow_noncausal = false;
    i64 hash_seed = 0;
    std::string trace = "none", traffic = "uniform";
    bool operator==(const RouterConfig&) const = default;
    template <class Visitor>
    void fields(Visitor& v) {
        v.choice("kind", kind,
                 {"top_k", "noisy_top_k", "switch", "sigmoid_bias", "group_limited", "sinkhorn",
                  "expert_choice", "hash", "uniform", "nearest_prototype", "replay"},
                 "How tokens choose experts");
        v.choice("score", score, {"softmax", "softmax_over_top_k", "sigmoid"},
                 "Softmax over all experts or over the chosen ones, or sigmoid (sigmoid_bias: nothing else)");
        v.value("normalize", normalize, "auto",
                "Weights of the chosen experts sum to 1; auto: for top_k > 1");
        v.value("scale", scale, {1e-6, 1e6}, "Factor of all weights");
        v.value("groups", groups, kPositive, "group_limited, sigmoid_bias: groups of consecutive experts");
        v.value("top_groups", top_groups, kPositive, "Groups whose experts a token may use");
        v.choice("group_score", group_score, {"top1", "top2_sum"},
                 "By what groups compete: largest score, or sum of the two largest");
        v.value("bias_rate", bias_rate, {0, 1}, "sigmoid_bias: step of a bias after each optimizer step");
        v.value("bias_recentre", bias_recentre, "sigmoid_bias: biases are kept at mean 0");
        v.value("jitter", jitter, {0, 0.999}, "switch: the router's input times 1 +- this while training");
        v.value("sinkhorn_iterations", sinkhorn_iterations, {1, 1000}, "sinkhorn: iterations");
        v.choice("sinkhorn_scope", sinkhorn_scope, {"sequence", "micro"},
                 "sinkhorn: tokens that share the experts evenly");
        v.choice("prototypes", prototypes, {"learnt", "fixed"}, "nearest_prototype: trained, or as drawn");
        v.value("allow_noncausal", allow_noncausal,
                "expert_choice in a causal model, where it lets tokens see later ones");
        v.value("hash_seed", hash_seed, kNotNegative, "hash: which table of ids");
        v.value("trace", trace, "replay: file that metrics.record_routing wrote");
        v.value("traffic", traffic, "uniform: a pattern of bench --traffic, e.g. zipf:1.0");
    }
};

}  // namespace moesaic
