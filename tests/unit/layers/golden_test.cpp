// The model against an independent PyTorch implementation (tests/reference): losses, logits and all
// gradients.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "launch/rank_runtime.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/config/load.h"
#include "tests/support/model_step.h"
#include "tests/support/source_folder.h"

namespace moesaic {
namespace {

using nlohmann::json;

template <Element T>
std::vector<T> values_of(const SafetensorsFile& file, const std::string& name) {
    const ConstTensorView view = file.at(name).view();
    return {view.as<T>(), view.as<T>() + view.elements()};
}

ModelSpec spec_of(const json& options) {
    const json& model = options.at("model");
    const json& moe = model.at("moe");
    ModelSpec spec;
    spec.vocabulary = options.at("vocab_size");
    spec.width = model.at("width");
    spec.layers = model.at("layers");
    spec.heads = model.at("heads");
    spec.kv_heads = model.at("kv_heads");
    spec.head_dim = model.at("head_dim");
    const std::string norm = model.at("qk_norm");
    spec.qk_norm = norm == "full" ? QkNorm::full : norm == "head" ? QkNorm::head : QkNorm::none;
    spec.norm_eps = model.at("norm_eps");
    spec.rope_theta = model.at("rope_theta");
    if (model.at("clip_qkv").is_number()) spec.clip_qkv = model.at("clip_qkv").get<double>();
    spec.dense_hidden = model.at("dense_hidden");
    spec.tie_embeddings = model.at("tie_embeddings");
    spec.experts = moe.at("experts");
    spec.top_k = moe.at("top_k");
    spec.hidden = moe.at("hidden");
    spec.every = moe.at("every");
    spec.router.normalize = moe.at("router").at("normalize");
    const LoadedConfig loaded =
        parse_config(json{{"model", {{"moe", moe}}}}.dump(), "options of the fixture");
    loaded.diagnostics.throw_if_any();
    const ModelSpec resolved = resolve_model(loaded.config, 1);
    spec.balance = resolved.balance;
    spec.capacity = resolved.capacity;
    spec.seq_len = options.at("task").at("data").at("seq_len");
    spec.micro_sequences = options.at("train").at("micro_sequences");
    return spec;
}

/// Step 1 of a fixture.
ModelStep step_of(const SafetensorsFile& file) {
    const json options = json::parse(file.metadata().at("options"));
    ModelStep step;
    step.spec = spec_of(options);
    const i64 sequences = options.at("train").at("batch_sequences"), columns = step.spec.seq_len + 1;
    const std::vector<i32> tokens = values_of<i32>(file, "tokens");  // [steps, sequences, seq_len + 1]
    for (i64 i = 0; i < sequences * columns; ++i) {
        const i32 token = tokens[static_cast<std::size_t>(i)];
        if (i % columns != columns - 1) step.tokens.push_back(token);
        if (i % columns != 0) step.targets.push_back(token);
    }
    for (const SafetensorsEntry& entry : file.entries()) {
        if (entry.name.starts_with("weight.")) {
            step.weights[entry.name.substr(7)] = values_of<double>(file, entry.name);
        }
    }
    return step;
}

void expect_close(const std::vector<double>& got, const std::vector<double>& want, const std::string& name) {
    ASSERT_EQ(got.size(), want.size()) << name;
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    EXPECT_LE(std::sqrt(difference), 1e-10 * std::sqrt(norm)) << name;
}

/// Choices that capacity drops in step 1, over all layers.
i64 dropped_in(const SafetensorsFile& file, const ModelSpec& spec) {
    if (!spec.capacity) return 0;
    const std::vector<i32> dropped = values_of<i32>(file, "dropped");  // [steps, layers]
    return std::reduce(dropped.begin(), dropped.begin() + spec.expert_layers(), i64{0});
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, EqualsPyTorch) {
    const SafetensorsFile file = SafetensorsFile::open(
        fmt::format("{}/tests/reference/fixtures/{}.safetensors", MOESAIC_SOURCE_DIR, GetParam()));
    ModelStep step = step_of(file);
    const std::vector<i32> counts = values_of<i32>(file, "expert_count");
    for (const auto& [ranks, expert_parallel] : {std::pair{1, 1}, {2, 1}, {4, 4}}) {
        SCOPED_TRACE(fmt::format("{} ranks, ep {}", ranks, expert_parallel));
        step.ranks = ranks;
        step.expert_parallel = expert_parallel;
        const ModelStepResult result = run_model_step(step);
        expect_close(result.token_loss, values_of<double>(file, "token_losses"), "token_losses");
        expect_close(result.logits, values_of<double>(file, "logits"), "logits");
        expect_close({result.loss}, {values_of<double>(file, "loss")[0]}, "loss");
        expect_close({result.balance.aux}, {values_of<double>(file, "loss_aux")[0]}, "loss_aux");
        expect_close({result.balance.z}, {values_of<double>(file, "loss_z")[0]}, "loss_z");
        if (step.spec.balance.importance > 0) {
            expect_close({result.balance.importance}, {values_of<double>(file, "loss_importance")[0]},
                         "loss_importance");
        }
        EXPECT_EQ(result.dropped, dropped_in(file, step.spec));
        for (std::size_t i = 0; i < result.counts.size(); ++i) EXPECT_EQ(result.counts[i], counts[i]);
        EXPECT_EQ(result.gradients.size(), step.weights.size());
        for (const auto& [name, gradient] : result.gradients) {
            expect_close(gradient, values_of<double>(file, "grad." + name), name);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, Golden,
                         testing::Values("mixtral", "olmoe", "qwen3_moe", "tied_every2", "gshard_drop",
                                         "hf_position", "switch_global"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace moesaic
