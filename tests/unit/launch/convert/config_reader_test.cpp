// What of a config.json is taken over, what is refused, and how it is said.
#include "launch/convert/config_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/base/error.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using nlohmann::json;

json fixture(const std::string& family) {
    return json::parse(read_text(std::string(MOESAIC_SOURCE_DIR) + "/tests/reference/fixtures/huggingface/" +
                                 family + "/config.json"));
}

ImportedConfig read_text_config(const std::string& text) {
    const ScratchFolder scratch;
    write_text(scratch / "config.json", text);
    return read_huggingface_config(scratch / "config.json");
}

ImportedConfig read(const std::string& family, const json& changes) {
    json config = fixture(family);
    config.update(changes);
    return read_text_config(config.dump(2));
}

/// The message, or empty where nothing was refused.
std::string refusal(const std::string& text) {
    try {
        (void)read_text_config(text);
    } catch (const UserError& error) {
        return error.what();
    }
    return "";
}
std::string refusal(const std::string& family, const json& changes) {
    json config = fixture(family);
    config.update(changes);
    return refusal(config.dump(2));
}

TEST(HuggingFaceConfig, TakesOverTheFamilies) {
    const ImportedConfig mixtral = read("mixtral", json::object());
    EXPECT_EQ(mixtral.family, Family::mixtral);
    EXPECT_EQ(mixtral.model.vocabulary, 40);
    EXPECT_EQ(mixtral.model.head_dim, 6);
    EXPECT_EQ(mixtral.model.rope_theta, 1e6);
    EXPECT_EQ(mixtral.model.moe.experts, 4);
    EXPECT_EQ(mixtral.model.moe.hidden, 12);
    EXPECT_EQ(mixtral.model.moe.router.normalize, true);
    EXPECT_EQ(mixtral.model.qk_norm, "none");
    EXPECT_EQ(mixtral.max_positions, 32);
    EXPECT_TRUE(mixtral.warnings.empty()) << mixtral.warnings[0];

    const ImportedConfig olmoe = read("olmoe", json::object());
    EXPECT_EQ(olmoe.model.qk_norm, "full");
    EXPECT_EQ(olmoe.model.clip_qkv, 1.5);
    EXPECT_EQ(olmoe.model.moe.router.normalize, false);
    EXPECT_FALSE(olmoe.model.head_dim);

    const ImportedConfig qwen = read("qwen3_moe", json::object());
    EXPECT_EQ(qwen.model.qk_norm, "head");
    EXPECT_EQ(qwen.model.moe.every, 2) << "layer 0 is in mlp_only_layers";
    EXPECT_EQ(qwen.model.moe.hidden, 12);
    EXPECT_EQ(qwen.model.dense_hidden, 20);
    EXPECT_TRUE(qwen.model.tie_embeddings);

    const ImportedConfig llama = read("llama", json::object());
    EXPECT_EQ(llama.model.moe.experts, 0);
    EXPECT_EQ(llama.model.dense_hidden, 20);
}

TEST(HuggingFaceConfig, TheClassesDefaults) {
    for (const auto& [family, theta, eps] : {std::tuple("mixtral", 1e6, 1e-5),
                                             {"olmoe", 1e4, 1e-5},
                                             {"qwen3_moe", 1e4, 1e-6},
                                             {"llama", 1e4, 1e-6}}) {
        json config = fixture(family);
        config.erase("rope_theta");
        config.erase("rms_norm_eps");
        config.erase("norm_topk_prob");
        const ImportedConfig read_back = read_text_config(config.dump());
        EXPECT_EQ(read_back.model.rope_theta, theta) << family;
        EXPECT_EQ(read_back.model.norm_eps, eps) << family;
        EXPECT_EQ(read_back.model.moe.router.normalize.value_or(false), family == std::string("mixtral"))
            << family;
    }
    EXPECT_EQ(read("llama", {{"num_key_value_heads", nullptr}}).model.kv_heads, 4);
    json old = fixture("llama");
    old.erase("num_key_value_heads");
    EXPECT_EQ(read_text_config(old.dump()).model.kv_heads, 4);
    EXPECT_EQ(read("mixtral", {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 7e4}}}})
                  .model.rope_theta,
              7e4)
        << "as version 5 writes it";
}

TEST(HuggingFaceConfig, LayersWithExperts) {
    const auto every = [](const json& changes) {
        const ModelConfig model = read("qwen3_moe", changes).model;
        return model.moe.experts == 0 ? 0 : model.moe.every;
    };
    const json none = json::array();
    EXPECT_EQ(every({{"num_hidden_layers", 7}, {"mlp_only_layers", none}}), 1);
    EXPECT_EQ(every({{"num_hidden_layers", 7}, {"mlp_only_layers", nullptr}, {"decoder_sparse_step", 3}}), 3);
    EXPECT_EQ(every({{"num_hidden_layers", 6}, {"mlp_only_layers", {0, 2, 4, 77}}}), 2);
    EXPECT_EQ(every({{"num_hidden_layers", 6}, {"mlp_only_layers", {1, 5}}, {"decoder_sparse_step", 2}}), 4);
    EXPECT_EQ(every({{"num_hidden_layers", 2}, {"mlp_only_layers", {0, 1}}}), 0);
    EXPECT_EQ(every({{"num_hidden_layers", 2}, {"mlp_only_layers", none}, {"decoder_sparse_step", 3}}), 0);
    EXPECT_EQ(every({{"num_experts", 0}}), 0);
    for (const json& dense : {json{0}, json{5}, json{0, 1, 2, 4}}) {
        EXPECT_THAT(refusal("qwen3_moe", {{"num_hidden_layers", 6}, {"mlp_only_layers", dense}}),
                    testing::HasSubstr("no regular pattern"))
            << dense;
    }
}

TEST(HuggingFaceConfig, RefusesWhatItCannotCompute) {
    const json yarn{{"rope_type", "yarn"}, {"factor", 4.0}};
    const std::vector<std::tuple<std::string, std::string, json>> refused{
        {"mixtral", "hidden_act", "gelu"},
        {"mixtral", "sliding_window", 16},
        {"mixtral", "router_jitter_noise", 0.1},
        {"mixtral", "attention_dropout", 0.1},
        {"mixtral", "quantization_config", {{"quant_method", "awq"}}},
        {"mixtral", "auto_map", {{"AutoModel", "modeling.X"}}},
        {"mixtral", "num_experts_per_tok", 5},
        {"mixtral", "num_local_experts", 0},
        {"mixtral", "layer_types", {"full_attention", "sliding_attention"}},
        {"olmoe", "attention_bias", true},
        {"olmoe", "rope_scaling", yarn},
        {"olmoe", "head_dim", 8},
        {"olmoe", "clip_qkv", -1},
        {"qwen3_moe", "rope_parameters", yarn},
        {"qwen3_moe", "partial_rotary_factor", 0.5},
        {"qwen3_moe", "decoder_sparse_step", 0},
        {"qwen3_moe", "mlp_only_layers", {0.5}},
        {"qwen3_moe", "moe_intermediate_size", nullptr},
        {"llama", "mlp_bias", true},
        {"llama", "rope_scaling", {{"type", "linear"}, {"factor", 2}}},
        {"llama", "rope_scaling", 2.0},
        {"llama", "hidden_size", 1.5},
        {"llama", "hidden_size", "16"},
        {"llama", "hidden_size", -16},
        {"llama", "hidden_size", 1e300},
        {"llama", "hidden_size", std::numeric_limits<u64>::max()},
        {"llama", "num_hidden_layers", true},
        {"llama", "num_key_value_heads", 3},
        {"llama", "head_dim", 7},
        {"llama", "rms_norm_eps", "small"},
        {"llama", "tie_word_embeddings", 1},
        {"llama", "vocab_size", {40}},
        {"llama", "pruned_heads", {{"0", {1}}}},
        {"llama", "is_encoder_decoder", true},
        {"llama", "architectures", {"LlamaForSequenceClassification"}},
        {"llama", "architectures", "LlamaForCausalLM"},
        {"llama", "model_type", "gemma"},
    };
    for (const auto& [family, key, value] : refused) {
        const std::string message = refusal(family, {{key, value}});
        EXPECT_THAT(message, testing::ContainsRegex("config\\.json:[0-9]+: "
                                                    "(" +
                                                    key + "|architectures)"))
            << key << " " << value;
    }
    for (const auto& [family, key, value] : std::vector<std::tuple<std::string, std::string, json>>{
             {"mixtral", "sliding_window", 32},  // as long as the longest sequence
             {"mixtral", "hidden_act", "swish"},
             {"qwen3_moe", "sliding_window", 8},  // use_sliding_window is false
             {"olmoe", "rope_scaling", {{"rope_type", "default"}}},
             {"llama", "partial_rotary_factor", 1.0},
             {"llama", "attention_dropout", 0},
             {"llama", "pretraining_tp", 2},
             {"llama", "quantization_config", nullptr}}) {
        EXPECT_EQ(refusal(family, {{key, value}}), "") << key;
    }
}

TEST(HuggingFaceConfig, TellsAllMistakesAtOnceAndWhatItIgnored) {
    const std::string message = refusal(
        "mixtral",
        {{"hidden_act", "relu"}, {"sliding_window", 8}, {"hidden_size", "x"}, {"vocab_size", nullptr}});
    EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 3) << message;
    const ImportedConfig config = read("llama", {{"new_attention_trick", true}, {"use_cache", false}});
    ASSERT_EQ(config.warnings.size(), 1U);
    EXPECT_THAT(config.warnings[0],
                testing::HasSubstr("new_attention_trick: this key is not known and was ignored"));
    EXPECT_EQ(read("mixtral", {{"num_experts_per_tok", 1}}).warnings.size(), 1U) << "cannot be trained";
}

TEST(HuggingFaceConfig, DamagedFiles) {
    const std::string good = fixture("qwen3_moe").dump(1);
    for (std::size_t bytes = 0; bytes + 1 < good.size(); bytes += 7)
        EXPECT_NE(refusal(good.substr(0, bytes)), "") << "cut after " << bytes;
    const std::string deep(100000, '[');
    for (const std::string& text :
         {std::string("[]"), std::string("null"), std::string("3"), std::string("\"x\""), deep,
          "{\"a\":" + deep + std::string(100000, ']') + "}", std::string("{\"vocab_size\": NaN}"),
          std::string("{\"vocab_size\": 1e999}"), std::string("{\"vocab_size\": 1, \"vocab_size\": 2}"),
          std::string("{\"architectures\": [\"\xff\xfe\"]}"), std::string(3, '\0'),
          std::string("\xef\xbb\xbf{}")}) {
        EXPECT_THAT(refusal(text), testing::HasSubstr("config.json")) << text.substr(0, 40);
    }
    EXPECT_THAT(refusal("{\"vocab_size\": 1,\n \"vocab_size\": 2}"),
                testing::HasSubstr("\"vocab_size\" occurs twice"));
    EXPECT_THROW((void)read_huggingface_config("/nowhere/config.json"), UserError);
}

}  // namespace
}  // namespace moesaic
