// Models that transformers wrote: imported, evaluated, exported, imported again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/convert/families.h"
#include "tests/unit/launch/convert/imported_model.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

class EveryFamily : public testing::TestWithParam<std::string> {};

TEST_P(EveryFamily, SaysWhatHuggingFaceSays) {
    const Converter converter;
    ASSERT_EQ(converter.import_model(fixture_folder(GetParam()), "run"), 0);
    const ExpectedLogits expected = expected_logits(GetParam());
    EXPECT_LE(relative_difference(converter.logits("run", expected.tokens), expected.logits), 1e-5);
    EXPECT_LE(relative_difference(converter.logits("run", expected.tokens, {"train.precision=fp64"}),
                                  expected.logits),
              2e-7)
        << "both in fp64, written as fp32";
}

TEST_P(EveryFamily, ComesBackByteByByte) {
    const Converter converter;
    const std::string source = fixture_folder(GetParam());
    ASSERT_EQ(converter.import_model(source, "run"), 0);
    const bool brain_float = GetParam() == "qwen3_moe";  // as that fixture is stored
    ASSERT_EQ(converter.export_model("run", "out", brain_float, 8000), 0);
    if (GetParam() != "olmoe") {
        EXPECT_EQ(tensors_in(converter.path("out")), tensors_in(source));  // f16 comes back as f32
    }
    EXPECT_TRUE(fs::exists(converter.path("out/model.safetensors.index.json"))) << "several files";
    ASSERT_EQ(converter.import_model(converter.path("out"), "again"), 0);
    const std::string step = "/checkpoints/step-00000000";
    EXPECT_EQ(tensors_in(converter.path("again" + step)), tensors_in(converter.path("run" + step)));
    EXPECT_EQ(checkpoint_config(converter.path("again" + step), {}).model,
              checkpoint_config(converter.path("run" + step), {}).model);
}

TEST_P(EveryFamily, ConfigurationOfTheExport) {
    const Converter converter;
    ASSERT_EQ(converter.import_model(fixture_folder(GetParam()), "run"), 0);
    ASSERT_EQ(converter.export_model("run", "out"), 0);
    const json before = json::parse(read_text(fixture_folder(GetParam()) + "/config.json"));
    const json after = json::parse(read_text(converter.path("out/config.json")));
    for (const auto& [key, value] : before.items()) {
        // Book-keeping, and two ways to say which layers are dense.
        if (key == "transformers_version" || key == "torch_dtype" || key == "use_cache" ||
            key == "router_aux_loss_coef" || key == "pretraining_tp" || key == "rope_scaling" ||
            key == "max_window_layers" || key == "mlp_only_layers" || key == "decoder_sparse_step")
            continue;
        EXPECT_EQ(after.value(key, json()), value) << key;
    }
    EXPECT_TRUE(fs::exists(converter.path("out/model.safetensors"))) << "one file";
    EXPECT_FALSE(fs::exists(converter.path("out/model.safetensors.index.json")));
}

INSTANTIATE_TEST_SUITE_P(HuggingFace, EveryFamily, testing::Values("mixtral", "olmoe", "qwen3_moe", "llama"),
                         [](const auto& one) { return one.param; });

TEST(HuggingFaceNames, OfMixtral) {
    EXPECT_EQ(huggingface_name(Family::mixtral, "model.layers.1.mlp.gate.weight"),
              "model.layers.1.block_sparse_moe.gate.weight");
    EXPECT_EQ(huggingface_name(Family::mixtral, "model.layers.1.mlp.experts.10.up_proj.weight"),
              "model.layers.1.block_sparse_moe.experts.10.w3.weight");
    EXPECT_EQ(huggingface_name(Family::mixtral, "model.layers.1.self_attn.q_proj.weight"),
              "model.layers.1.self_attn.q_proj.weight");
    EXPECT_EQ(huggingface_name(Family::olmoe, "model.layers.1.mlp.experts.10.up_proj.weight"),
              "model.layers.1.mlp.experts.10.up_proj.weight");
}

/// Rewrites a key of a copied fixture's config.json and returns what the import says.
std::string refusal_with(const Converter& converter, const std::string& folder, const std::string& key,
                         const json& value) {
    const std::string file = converter.path(folder + "/config.json");
    json config = json::parse(read_text(file));
    const json before = config[key];
    config[key] = value;
    write_text(file, config.dump());
    const std::string message =
        refusal_of([&] { return converter.import_model(converter.path(folder), "run"); });
    config[key] = before;
    write_text(file, config.dump());
    EXPECT_FALSE(fs::exists(converter.path("run")));
    EXPECT_FALSE(fs::exists(converter.path("run.partial")));
    return message;
}

TEST(Import, ListsTensorsThatDoNotFit) {
    const Converter converter;
    converter.copy("mixtral", "model");
    const std::string missing = refusal_with(converter, "model", "num_hidden_layers", 3);
    EXPECT_THAT(missing, HasSubstr("missing: model.layers.2.block_sparse_moe.experts.0.w1.weight [12,16]"));
    const std::string many = refusal_with(converter, "model", "num_local_experts", 20);
    EXPECT_THAT(many, HasSubstr("... and ")) << "not a thousand lines";
    EXPECT_LT(std::count(many.begin(), many.end(), '\n'), 25);
    EXPECT_THAT(refusal_with(converter, "model", "num_hidden_layers", 1),
                HasSubstr("too many: \"model.layers.1.input_layernorm.weight\""));
    EXPECT_THAT(refusal_with(converter, "model", "vocab_size", 41),
                HasSubstr("wrong shape: lm_head.weight is [40,16], should be [41,16]"));
    EXPECT_THAT(refusal_with(converter, "model", "num_hidden_layers", 100000),
                HasSubstr("tensors, the files hold"));
    EXPECT_THAT(refusal_with(converter, "model", "num_local_experts", 65536),
                HasSubstr("tensors, the files hold"));
}

/// A tensor of a file with other bytes or another type.
void rewrite(const std::string& path, const std::string& name, const std::string& dtype, u32 first_element) {
    std::string bytes = read_text(path);
    const SafetensorsFile file = SafetensorsFile::open(path);
    const SafetensorsEntry& entry = file.at(name);
    const auto at = static_cast<std::size_t>(entry.data - file.entries().front().data);
    const std::size_t data =
        bytes.size() - static_cast<std::size_t>(file.entries().back().data + file.entries().back().bytes -
                                                file.entries().front().data);
    std::memcpy(bytes.data() + data + at, &first_element, sizeof first_element);
    const std::size_t stands = bytes.find('"' + name + '"');
    bytes.replace(bytes.find("\"F32\"", stands), 5, dtype);
    write_text(path, bytes);
}

TEST(Import, RefusesValuesAndTypesThatGiveNoNumbers) {
    const Converter converter;
    converter.copy("llama", "model");
    const std::string file = converter.path("model/model.safetensors");
    const std::string good = read_text(file);
    const std::string name = "model.layers.1.mlp.up_proj.weight";
    rewrite(file, name, "\"F32\"", 0x7fc00000);
    const auto import = [&] { return converter.import_model(converter.path("model"), "run"); };
    EXPECT_THAT(refusal_of(import), HasSubstr("tensor \"" + name + "\" holds nan (element 0)"));
    EXPECT_FALSE(fs::exists(converter.path("run")));
    EXPECT_FALSE(fs::exists(converter.path("run.partial")));
    write_text(file, good);
    rewrite(file, name, "\"I32\"", 0);
    EXPECT_THAT(refusal_of(import),
                HasSubstr("wrong type: " + name + " holds I32; F32, BF16 and F16 are read"));
}

TEST(Import, SettingsAndFolders) {
    const Converter converter;
    const std::string source = fixture_folder("mixtral");
    ASSERT_EQ(converter.import_model(source, "run", {"task.data.seq_len=8", "optimizer.lr=1e-4"}), 0);
    const Config config = checkpoint_config(resolve_checkpoint(converter.path("run")), {});
    EXPECT_EQ(config.task.data.seq_len, 8);
    EXPECT_EQ(config.run.name, "run");
    EXPECT_EQ(config.run.out + "/run", converter.path("run"));
    EXPECT_THAT(refusal_of([&] { return converter.import_model(source, "run"); }),
                HasSubstr("exists already"));
    EXPECT_THAT(refusal_of([&] {
                    return converter.import_model(source, "r2", {"model.moe.top_k=5", "run.seed=x"});
                }),
                testing::AllOf(HasSubstr("a token cannot visit 5 of 4"), HasSubstr("--set run.seed=x")));
    EXPECT_THAT(refusal_of([&] { return converter.import_model(source, "a name"); }), HasSubstr("run.name"));
    EXPECT_THAT(refusal_of([&] { return converter.import_model(converter.path("none"), "r2"); }),
                HasSubstr("none/config.json"));
    ASSERT_EQ(converter.import_model(source, "short"), 0);
    EXPECT_EQ(checkpoint_config(resolve_checkpoint(converter.path("short")), {}).task.data.seq_len, 32);
}

TEST(Import, KeepsTheTokenizersFilesAndGivesThemBack) {
    const Converter converter;
    converter.copy("llama", "model");
    write_text(converter.path("model/tokenizer_config.json"), "{\"x\": 1}");
    write_text(converter.path("model/README.md"), "not of the model");
    json config = json::parse(read_text(converter.path("model/config.json")));
    config["bos_token_id"] = 7;
    config["eos_token_id"] = {2, 3};
    config["max_position_embeddings"] = 4096;
    write_text(converter.path("model/config.json"), config.dump());
    ASSERT_EQ(converter.import_model(converter.path("model"), "run"), 0);
    ASSERT_EQ(converter.export_model("run", "out"), 0);
    EXPECT_EQ(read_text(converter.path("out/tokenizer_config.json")), "{\"x\": 1}");
    EXPECT_FALSE(fs::exists(converter.path("out/README.md")));
    const json after = json::parse(read_text(converter.path("out/config.json")));
    EXPECT_EQ(after.at("bos_token_id"), 7);
    EXPECT_EQ(after.at("eos_token_id"), json({2, 3}));
    EXPECT_EQ(after.at("max_position_embeddings"), 4096);
    EXPECT_EQ(checkpoint_config(resolve_checkpoint(converter.path("run")), {}).task.data.seq_len, 1024);
}

}  // namespace
}  // namespace moesaic
