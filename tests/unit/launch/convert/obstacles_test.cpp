// Which class a model is, and what keeps it from being another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/convert/config_writer.h"
#include "launch/rank_runtime.h"
#include "runtime/base/error.h"
#include "runtime/config/load.h"

namespace moesaic {
namespace {

Config config_with(const std::vector<std::string>& sets) {
    LoadedConfig loaded = parse_config("", "test", sets);
    EXPECT_EQ(loaded.diagnostics.text(), "");
    return loaded.config;
}

std::string family_or_refusal(const std::vector<std::string>& sets) {
    const Config config = config_with(sets);
    try {
        return family_entry(choose_family(config, resolve_model(config, 256), "RUN")).model_type;
    } catch (const UserError& error) {
        return error.what();
    }
}

TEST(ChooseFamily, ByTheOptions) {
    EXPECT_EQ(family_or_refusal({}), "mixtral");
    EXPECT_EQ(family_or_refusal({"model.head_dim=8"}), "mixtral");
    EXPECT_EQ(family_or_refusal({"model.moe.router.score=softmax_over_top_k"}), "mixtral");
    EXPECT_EQ(family_or_refusal({"model.qk_norm=full", "model.clip_qkv=8"}), "olmoe");
    EXPECT_EQ(family_or_refusal({"model.qk_norm=full", "model.moe.router.normalize=false"}), "olmoe");
    EXPECT_EQ(family_or_refusal({"model.qk_norm=head", "model.moe.every=2", "model.head_dim=8"}),
              "qwen3_moe");
    EXPECT_EQ(family_or_refusal({"model.moe.experts=0", "model.tie_embeddings=true"}), "llama");
    EXPECT_EQ(family_or_refusal({"model.moe.balance.aux=0.5", "model.init_std=1", "optimizer.lr=1"}),
              "mixtral");
}

TEST(ChooseFamily, TellsWhatPreventsEach) {
    const std::string message =
        family_or_refusal({"model.moe.every=2", "model.moe.router.normalize=false", "model.clip_qkv=8"});
    EXPECT_EQ(message,
              "RUN: no class of Hugging Face has these options:\n"
              "  MixtralForCausalLM: model.clip_qkv: 8 (it has none); model.moe.every: 2 (it has 1); "
              "model.moe.router.normalize: false (it has true)\n"
              "  OlmoeForCausalLM: model.qk_norm: none (it has full); model.moe.every: 2 (it has 1)\n"
              "  Qwen3MoeForCausalLM: model.qk_norm: none (it has head); model.clip_qkv: 8 (it has none)\n"
              "  LlamaForCausalLM: model.moe.experts: 8 (it has none: 0); model.clip_qkv: 8 (it has none)");
    EXPECT_THAT(family_or_refusal({"model.qk_norm=full", "model.head_dim=8"}),
                testing::HasSubstr("OlmoeForCausalLM: model.head_dim: 8 (it has width / heads)"));
}

TEST(ChooseFamily, AnActivationOfOurOwnPrevents) {
    for (const char* name : {"gelu", "relu", "prelu"}) {
        const std::string set = fmt::format("model.moe.activation={}", name);
        const std::string has = fmt::format("model.moe.activation: {} (it has swiglu)", name);
        const std::string message = family_or_refusal({set}),
                          dense = family_or_refusal({set, "model.moe.experts=0"});
        EXPECT_THAT(message, testing::HasSubstr("MixtralForCausalLM: " + has + "\n"));
        EXPECT_THAT(dense, testing::HasSubstr("LlamaForCausalLM: " + has));
        EXPECT_THAT(dense, testing::Not(testing::HasSubstr(has + "; " + has)));
    }
}

TEST(ChooseFamily, AnOptionItDoesNotKnowPrevents) {
    Config config = config_with({});
    config.model.moe.shared_experts = 1;
    config.model.moe.shared_gate = true;
    config.model.moe.capacity.dropless = false;
    const std::vector<std::string> list =
        obstacles(Family::mixtral, config, resolve_model(config_with({}), 256));
    EXPECT_THAT(list, testing::Contains("model.moe.shared_experts: 1 (it has 0)"));
    EXPECT_THAT(list, testing::Contains("model.moe.shared_gate: true (it has false)"));
    EXPECT_THAT(list, testing::Contains(testing::HasSubstr("model.moe.capacity")));
    config.model.moe.experts = 0;
    EXPECT_TRUE(obstacles(Family::llama, config, resolve_model(config, 256)).empty()) << "dense: no matter";
}

}  // namespace
}  // namespace moesaic
