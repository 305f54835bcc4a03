// The section model.moe.router: what goes together, and what is said of what does not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "runtime/config/load.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

LoadedConfig parse(const std::vector<std::string>& overrides) {
    std::vector<std::string> all;
    for (const std::string& one : overrides) all.push_back("model.moe." + one);
    return parse_config("", "c.yaml", all);
}

void expect_good(const std::vector<std::string>& overrides) {
    EXPECT_EQ(parse(overrides).diagnostics.text(), "");
}

void expect_one(const std::vector<std::string>& overrides, const std::string& key, const std::string& message,
                const std::string& hint) {
    const LoadedConfig loaded = parse(overrides);
    ASSERT_EQ(loaded.diagnostics.list().size(), 1U) << loaded.diagnostics.text();
    const Diagnostic& one = loaded.diagnostics.list().front();
    EXPECT_EQ(one.key, "model.moe." + key);
    EXPECT_THAT(one.message, HasSubstr(message));
    EXPECT_THAT(one.hint, HasSubstr(hint));
}

TEST(RouterConfig, AcceptsWhatGoesTogether) {
    expect_good({"router.kind=noisy_top_k", "router.scale=2.5"});
    expect_good({"router.kind=switch", "top_k=1", "router.jitter=0.01"});
    expect_good({"router.kind=sigmoid_bias", "router.groups=4", "router.top_groups=2",
                 "router.group_score=top2_sum", "router.scale=2.5", "router.bias_rate=0.01"});
    expect_good({"router.kind=group_limited", "router.groups=2", "router.score=sigmoid"});
    expect_good({"router.kind=sinkhorn", "router.sinkhorn_scope=micro"});
    expect_good({"router.kind=expert_choice", "router.allow_noncausal=true"});
    expect_good({"router.kind=hash", "router.hash_seed=3"});
    expect_good({"router.kind=uniform", "top_k=1"});
    expect_good({"router.kind=nearest_prototype", "top_k=1", "router.prototypes=fixed"});
}

TEST(RouterConfig, SigmoidBiasScoresBySigmoid) {
    const LoadedConfig loaded = parse({"router.kind=sigmoid_bias"});
    EXPECT_EQ(loaded.config.model.moe.router.score, "sigmoid");
    EXPECT_EQ(parse_config(to_yaml(loaded.config), "again").diagnostics.text(), "");
    expect_one({"router.kind=sigmoid_bias", "router.score=softmax"}, "router.score",
               "softmax does not go with kind sigmoid_bias", "sigmoid");
}

TEST(RouterConfig, RefusesExpertChoiceInACausalModel) {
    expect_one({"router.kind=expert_choice"}, "router.kind", "learn from its own future",
               "allow_noncausal: true");
}

TEST(RouterConfig, RefusesOptionsWithoutEffect) {
    expect_one({"router.groups=4"}, "router.groups", "has no meaning for kind top_k",
               "group_limited, sigmoid_bias");
    expect_one({"router.kind=hash", "router.scale=2"}, "router.scale", "has no meaning for kind hash",
               "top_k");
    expect_one({"router.kind=noisy_top_k", "router.jitter=0.1"}, "router.jitter", "no meaning", "switch");
    expect_one({"router.bias_rate=0.1"}, "router.bias_rate", "no meaning", "sigmoid_bias");
}

TEST(RouterConfig, RefusesChoicesThatDoNotFit) {
    expect_one({"router.kind=switch"}, "top_k", "one expert, not 2", "1");
    expect_one({"router.kind=nearest_prototype"}, "top_k", "one expert, not 2", "1");
    expect_one({"router.kind=switch", "top_k=1", "router.normalize=true"}, "router.normalize",
               "need not sum to 1", "auto or false");
    expect_one({"router.kind=noisy_top_k", "top_k=1", "router.normalize=true"}, "router.normalize",
               "gradient is zero", "top_k 2");
    expect_one({"router.kind=sigmoid_bias", "top_k=1", "router.normalize=true"}, "router.normalize",
               "gradient is zero", "top_k 2");
    expect_one({"router.kind=noisy_top_k", "router.score=sigmoid"}, "router.score", "does not go with",
               "softmax");
}

TEST(RouterConfig, RefusesGroupsThatDoNotFit) {
    expect_one({"router.kind=group_limited"}, "router.groups", "needs several groups", "divisor");
    expect_one({"router.kind=group_limited", "router.groups=3"}, "router.groups",
               "3 groups cannot share 8 experts", "divisor");
    expect_one({"router.kind=group_limited", "router.groups=4", "router.top_groups=5"}, "router.top_groups",
               "5 of 4 groups", "at most");
    expect_one({"router.kind=group_limited", "router.groups=8"}, "router.top_groups",
               "1 groups of 1 experts hold fewer than top_k = 2", "more groups");
}

/// Whose trace no replay could follow.
TEST(RouterConfig, ChoicesOfExpertsAreNotRecorded) {
    const LoadedConfig loaded = parse_config("", "c.yaml",
                                             std::vector<std::string>{"model.moe.router.kind=expert_choice",
                                                                      "model.moe.router.allow_noncausal=true",
                                                                      "metrics.record_routing=choices.npy"});
    EXPECT_THAT(loaded.diagnostics.text(), testing::HasSubstr("no replay could follow it"));
}

TEST(RouterConfig, ReplayNeedsItsFile) {
    expect_one({"router.kind=replay"}, "router.trace", "needs a trace", "metrics.record_routing");
    expect_one({"router.kind=replay", "router.trace=/no/such/file.npy"}, "router.trace", "is no file",
               "metrics.record_routing");
}

}  // namespace
}  // namespace moesaic
