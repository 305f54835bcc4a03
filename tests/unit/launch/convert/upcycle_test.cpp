// Dense models that become mixtures; resharding and the audit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/checkpoint_reader.h"
#include "tests/unit/launch/convert/imported_model.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

ConvertUpcycleOptions upcycle(const Converter& converter, const std::string& source, const std::string& run,
                              long experts) {
    ConvertUpcycleOptions options;
    options.source = source;
    options.out = converter.path(run);
    options.experts = experts;
    return options;
}

TEST(Upcycle, TheMixtureIsTheDenseModel) {
    const Converter converter;
    const ExpectedLogits expected = expected_logits("llama");
    const std::vector<std::string> wide{"train.precision=fp64"};
    ASSERT_EQ(converter.import_model(fixture_folder("llama"), "dense"), 0);
    const std::vector<float> dense = converter.logits("dense", expected.tokens);
    int number = 0;
    for (const std::string& source : {fixture_folder("llama"), converter.path("dense")}) {
        for (const auto& [experts, top_k, every, zero] :
             {std::tuple(2, 2, 1, false), {7, 3, 1, false}, {4, 2, 2, false}, {4, 2, 1, true}}) {
            const std::string run = "mixture" + std::to_string(number++);
            ConvertUpcycleOptions options = upcycle(converter, source, run, experts);
            options.top_k = top_k;
            options.every = every;
            options.zero_router = zero;
            ASSERT_EQ(convert_upcycle_command(options), 0);
            EXPECT_LE(relative_difference(converter.logits(run, expected.tokens), dense), 1e-6);
            EXPECT_LE(relative_difference(converter.logits(run, expected.tokens, wide), expected.logits),
                      2e-7);
            const auto tensors = tensors_in(resolve_checkpoint(converter.path(run)));
            EXPECT_EQ(tensors.contains("model.layers.0.mlp.gate_proj.weight"), every == 2);
            EXPECT_EQ(tensors.at("model.layers.1.mlp.experts.0.up_proj.weight"),
                      tensors.at("model.layers.1.mlp.experts.1.up_proj.weight"));
            const std::string router = tensors.at("model.layers.1.mlp.gate.weight").bytes;
            EXPECT_EQ(router == std::string(router.size(), '\0'), zero);
        }
    }
}

/// They start as nothing, and learn: their last projection is zero, the others are not.
TEST(Upcycle, SharedExpertsBeginAtZero) {
    const Converter converter;
    const ExpectedLogits expected = expected_logits("llama");
    ConvertUpcycleOptions options = upcycle(converter, fixture_folder("llama"), "mixture", 4);
    options.overrides = {"model.moe.shared_experts=2", "model.moe.shared_gate=true"};
    ASSERT_EQ(convert_upcycle_command(options), 0);
    EXPECT_LE(relative_difference(converter.logits("mixture", expected.tokens, {"train.precision=fp64"}),
                                  expected.logits),
              2e-7);
    const auto tensors = tensors_in(resolve_checkpoint(converter.path("mixture")));
    const auto is_zero = [&](const std::string& name) {
        const std::string& bytes = tensors.at("model.layers.1.mlp." + name).bytes;
        return bytes == std::string(bytes.size(), '\0');
    };
    EXPECT_TRUE(is_zero("shared_expert.down_proj.weight"));
    EXPECT_FALSE(is_zero("shared_expert.up_proj.weight"));
    EXPECT_FALSE(is_zero("shared_expert_gate.weight"));
    EXPECT_EQ(tensors.at("model.layers.1.mlp.shared_expert.up_proj.weight").bytes.size(),
              2 * tensors.at("model.layers.1.mlp.experts.0.up_proj.weight").bytes.size());
}

TEST(Upcycle, NoiseIsOfTheSizeAskedForAndOfTheSeed) {
    const Converter converter;
    const auto experts = [&](const std::string& run, unsigned long seed) {
        ConvertUpcycleOptions options = upcycle(converter, fixture_folder("llama"), run, 2);
        options.noise = 0.1;
        options.seed = seed;
        EXPECT_EQ(convert_upcycle_command(options), 0);
        return tensors_in(resolve_checkpoint(converter.path(run)));
    };
    const auto one = experts("one", 1), again = experts("again", 1), other = experts("other", 2);
    const std::string name = "model.layers.0.mlp.experts.1.down_proj.weight";
    EXPECT_EQ(one, again);
    EXPECT_NE(one.at(name), other.at(name));
    EXPECT_NE(one.at(name), one.at("model.layers.0.mlp.experts.0.down_proj.weight"));
    const std::string dense =
        tensors_in(fixture_folder("llama")).at("model.layers.0.mlp.down_proj.weight").bytes;
    double noise = 0, size = 0;
    for (std::size_t i = 0; i < dense.size(); i += sizeof(float)) {
        float before = 0, after = 0;
        std::memcpy(&before, dense.data() + i, sizeof before);
        std::memcpy(&after, one.at(name).bytes.data() + i, sizeof after);
        noise += (after - before) * (after - before);
        size += before * before;
    }
    EXPECT_NEAR(std::sqrt(noise / size), 0.1, 0.015) << "320 draws";
}

TEST(Upcycle, WhatCannotBe) {
    const Converter converter;
    ConvertUpcycleOptions options = upcycle(converter, fixture_folder("mixtral"), "run", 4);
    const auto refused = [&] { return refusal_of([&] { return convert_upcycle_command(options); }); };
    EXPECT_THAT(refused(), HasSubstr("has 4 experts already"));
    options.source = fixture_folder("llama");
    options.top_k = 1;
    EXPECT_THAT(refused(), HasSubstr("--top-k 2 or more"));
    options.top_k = 5;
    EXPECT_THAT(refused(), HasSubstr("a token cannot visit 5 of 4"));
    options.top_k = 2;
    options.every = 3;
    EXPECT_THAT(refused(), HasSubstr("no layer of 2 would have experts"));
    options.source = converter.path("nothing");
    EXPECT_NE(refused(), "");
    EXPECT_FALSE(std::filesystem::exists(converter.path("run")));
}

TEST(Reshard, TheSameTensorsInOtherFiles) {
    const Converter converter;
    ASSERT_EQ(converter.import_model(fixture_folder("mixtral"), "run"), 0);
    for (const long shards : {1, 3, 200}) {
        const std::string out = "out" + std::to_string(shards);
        ASSERT_EQ(convert_reshard_command({converter.path("run"), converter.path(out), shards}), 0);
        const std::string checkpoint = resolve_checkpoint(converter.path(out));
        EXPECT_EQ(read_manifest(checkpoint).shards.size(), static_cast<std::size_t>(shards));
        EXPECT_EQ(tensors_in(checkpoint), tensors_in(resolve_checkpoint(converter.path("run"))));
        EXPECT_EQ(convert_audit_command({checkpoint, false}), 0);
    }
}

TEST(Audit, FindsWhatIsWrong) {
    const Converter converter;
    ASSERT_EQ(converter.import_model(fixture_folder("mixtral"), "run"), 0);
    const std::string checkpoint = resolve_checkpoint(converter.path("run"));
    const std::string shard = checkpoint + "/" + shard_file_name(0, 1), good = read_text(shard);
    const auto audit = [&] {
        testing::internal::CaptureStdout();
        const int code = convert_audit_command({checkpoint, true});
        return std::pair(code, testing::internal::GetCapturedStdout());
    };
    EXPECT_EQ(audit().first, 0) << audit().second;
    std::string flipped = good;
    flipped[flipped.size() - 5] ^= 1;
    write_text(shard, flipped);
    EXPECT_EQ(audit().first, 3);
    EXPECT_THAT(audit().second, HasSubstr("damaged shard: expected checksum"));
    write_text(shard, good.substr(0, good.size() - 1));
    EXPECT_THAT(audit().second, HasSubstr("truncated shard"));

    // A manifest that agrees with its shard, about weights that are of no use.
    std::memset(flipped.data() + flipped.size() - 4, 0xff, 4);
    write_text(shard, flipped);
    Manifest manifest = read_manifest(checkpoint);
    const Manifest right = manifest;
    const auto rewrite = [&](const std::string& bytes) {
        write_text(shard, bytes);
        manifest.shards.clear();
        manifest.tensors.clear();
        manifest.add_shard(checkpoint, {shard_file_name(0, 1), static_cast<i64>(bytes.size()),
                                        checksum_of(bytes.data(), bytes.size())});
        write_manifest(checkpoint, manifest);
    };
    rewrite(flipped);
    EXPECT_EQ(audit().first, 3);
    EXPECT_THAT(audit().second, HasSubstr("1 of 640 values are not finite"));
    manifest.step = 5;
    rewrite(good);
    EXPECT_THAT(audit().second, HasSubstr("model.norm.weight.first_moment: is missing"));
    manifest = right;
    manifest.config.replace(manifest.config.find("experts: 4"), 10, "experts: 3");
    rewrite(good);
    EXPECT_THAT(audit().second,
                testing::AllOf(HasSubstr("belongs to no part of the model"), HasSubstr("has shape [4,16]")));
    EXPECT_NE(refusal_of([&] { return convert_audit_command({converter.path("none"), false}); }), "");
}

}  // namespace
}  // namespace moesaic
