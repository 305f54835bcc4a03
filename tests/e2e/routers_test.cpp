// Routers as their users meet them: the check's line, checkpoints, evaluation, traces.
#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

const Words kSixSteps{"train.steps=6",      "optimizer.schedule.warmup=1",        "train.log_every=1",
                      "train.eval_every=6", "generalization.heldout_sequences=8", "train.checkpoint_every=3"};

Words with(Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

TEST(Routers, CheckPrintsTheRouterInALine) {
    const ScratchFolder scratch;
    const Words deepseek{"model.moe.experts=8",        "model.moe.router.kind=sigmoid_bias",
                         "model.moe.router.groups=4",  "model.moe.router.top_groups=2",
                         "model.moe.router.scale=2.5", "model.moe.router.group_score=top2_sum"};
    const CommandResult check = moesaic(tiny(scratch / "out", deepseek, {"--check"}));
    EXPECT_EQ(check.code, 0) << check.text();
    EXPECT_EQ(
        occurrences(check.out,
                    "router    sigmoid_bias, 2 of 8 experts, sigmoid weights that sum to 2.5, 2 of 4 groups "
                    "by top2_sum, bias rate 0.001\n"),
        1)
        << check.text();
    const CommandResult hash = moesaic(tiny(scratch / "out", {"model.moe.router.kind=hash"}, {"--check"}));
    EXPECT_EQ(occurrences(hash.out,
                          "router    hash, 2 of 4 experts, weights 1/2, hash seed 0; nothing is learnt, "
                          "no balance loss\n"),
              1)
        << hash.text();
    expect_failure(
        moesaic(tiny(scratch / "out", {"model.moe.router.kind=expert_choice"})), 2,
        {"model.moe.router.kind: with expert_choice", "learn from its own future", "allow_noncausal: true"});
}

/// The bias is saved, moves, is the same on every layout, and neither moments nor decay belong to it.
TEST(Routers, BiasIsPartOfTheCheckpoint) {
    const ScratchFolder scratch;
    const Words overrides =
        with(kSixSteps, {"model.moe.router.kind=sigmoid_bias", "model.moe.router.bias_rate=0.1"});
    const auto alone = train_tiny(scratch / "alone", kAlone, overrides);
    const StoredTensors straight = read_tensors(scratch / "alone/tiny/checkpoints/step-00000006");
    const std::string name = "model.layers.1.mlp.gate.e_score_correction_bias";
    ASSERT_TRUE(straight.contains(name));
    EXPECT_EQ(straight.at(name).dtype, "F32");
    EXPECT_NE(straight.at(name).bytes, std::string(straight.at(name).bytes.size(), '\0'));
    for (const auto& [tensor, stored] : straight) {
        if (tensor.find("correction_bias") == std::string::npos) continue;
        EXPECT_TRUE(tensor.ends_with("_bias")) << tensor << " has no moments";
    }
    for (const Ranks& ranks : {threads(4), mpirun(2)}) {
        if (!can_run(ranks)) continue;
        const auto records = train_tiny(scratch / name_of(ranks), ranks, overrides);
        EXPECT_EQ(losses(records).at(1), losses(alone).at(1));
        EXPECT_EQ(read_tensors(scratch / name_of(ranks) + "/tiny/checkpoints/step-00000006").at(name),
                  straight.at(name));
    }
    const auto resumed = train_tiny(scratch / "resumed", kAlone, overrides,
                                    {"--resume", scratch / "alone/tiny/checkpoints/step-00000003"});
    EXPECT_EQ(losses(resumed).at(6), losses(alone).at(6));
    expect_same_bytes(read_tensors(scratch / "resumed/tiny/checkpoints/step-00000006"), straight);
    // In bf16 the weights are rounded; the bias is not.
    train_tiny(scratch / "narrow", kAlone, with(overrides, {"train.precision=bf16"}));
    EXPECT_EQ(read_tensors(scratch / "narrow/tiny/checkpoints/step-00000006").at(name).dtype, "F32");
}

TEST(Routers, WhatReadsCheckpointsKnowsTheBias) {
    const ScratchFolder scratch;
    train_tiny(scratch / "out", kAlone, with(kSixSteps, {"model.moe.router.kind=sigmoid_bias"}));
    const std::string run = scratch / "out/tiny";
    for (const Words& words :
         {Words{"eval", run}, Words{"eval", run, "--top-k", "1"},
          Words{"generate", run, "--prompt", "a", "--tokens", "5"}, Words{"convert", "audit", run},
          Words{"convert", "reshard", run, scratch / "reshard", "--shards", "2"}}) {
        const CommandResult result = moesaic(words);
        EXPECT_EQ(result.code, 0) << words[0] << " " << words[1] << "\n" << result.text();
    }
    expect_failure(moesaic({"convert", "export", run, scratch / "hf", "--to", "hf"}), 2,
                   {"no class of Hugging Face has these options"});
    EXPECT_GT(occurrences(moesaic({"convert", "export", run, scratch / "hf", "--to", "hf"}).err,
                          "model.moe.router.kind: sigmoid_bias (it has top_k)"),
              0);
}

/// Every kind trains and is evaluated; ranks change no bit of the first loss.
TEST(Routers, EveryKindTrains) {
    const ScratchFolder scratch;
    for (const Words& router :
         {Words{"noisy_top_k"}, Words{"switch", "model.moe.top_k=1", "model.moe.router.jitter=0.1"},
          Words{"group_limited", "model.moe.router.groups=2"}, Words{"sinkhorn"},
          Words{"expert_choice", "model.moe.router.allow_noncausal=true"}, Words{"hash"}, Words{"uniform"},
          Words{"nearest_prototype", "model.moe.top_k=1"},
          Words{"nearest_prototype", "model.moe.top_k=1", "model.moe.router.prototypes=fixed"}}) {
        SCOPED_TRACE(router[0]);
        Words overrides = with(kSixSteps, {"model.moe.router.kind=" + router[0]});
        overrides.insert(overrides.end(), router.begin() + 1, router.end());
        const auto alone = train_tiny(scratch / "alone", kAlone, overrides);
        const auto records = train_tiny(scratch / "threads", threads(4), overrides);
        ASSERT_EQ(losses(alone).size(), 6U);
        EXPECT_EQ(losses(records).at(1), losses(alone).at(1));
        EXPECT_NEAR(losses(records).at(6), losses(alone).at(6), 1e-5 * losses(alone).at(6));
        EXPECT_LT(losses(alone).at(6), losses(alone).at(1));
        const CommandResult audit = moesaic({"convert", "audit", scratch / "alone/tiny"});
        EXPECT_EQ(audit.code, 0) << audit.text();
    }
}

std::vector<Json> loads_of(const std::vector<Json>& records) {
    std::vector<Json> loads;
    for (const Json& record : events(records, "experts")) loads.push_back(record.at("load"));
    return loads;
}

TEST(Routers, ARecordedRunIsReplayed) {
    const ScratchFolder scratch;
    const auto record = [&](const std::string& name, const Ranks& ranks) {
        return train_tiny(scratch / name, ranks,
                          with(kSixSteps, {"metrics.record_routing=" + (scratch / name) + ".npy"}));
    };
    const auto recorded = record("alone", kAlone);
    record("spread", threads(4));
    const std::string trace = read_text(scratch / "alone.npy");
    EXPECT_TRUE(trace.find("'shape': (6,2,512,2,)") != std::string::npos) << trace.substr(0, 128);
    EXPECT_EQ(read_text(scratch / "spread.npy"), trace);
    const auto replayed = train_tiny(scratch / "replay", threads(2),
                                     with(kSixSteps, {"model.moe.router.kind=replay",
                                                      "model.moe.router.trace=" + (scratch / "alone.npy")}));
    EXPECT_EQ(loads_of(replayed), loads_of(recorded));
    expect_failure(moesaic(tiny(scratch / "bad", {"model.moe.router.kind=replay", "model.layers=3",
                                                  "model.moe.router.trace=" + (scratch / "alone.npy")})),
                   2, {"does not fit a model with 3 layers of experts"});
}

}  // namespace
}  // namespace moesaic::e2e
