// Sections that a word may stand for, and what does not go together in them.
#include "runtime/config/config.h"
#include "tests/unit/runtime/config/config_checks.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

TEST(Config, ACapacityIsAMappingOrAWord) {
    const LoadedConfig given =
        parse("model: {moe: {capacity: {factor: 1.5, policy: position, rounding: olmo, per: micro}}}\n",
              {"model.moe.capacity.pad=true"});
    EXPECT_EQ(given.diagnostics.text(), "");
    const CapacityConfig& capacity = given.config.model.moe.capacity;
    EXPECT_FALSE(capacity.dropless);
    EXPECT_EQ(capacity.factor, 1.5);
    EXPECT_EQ(capacity.rounding, "olmo");
    EXPECT_TRUE(capacity.pad);
    EXPECT_EQ(parse_config(to_yaml(given.config), "again").config, given.config);
    EXPECT_FALSE(parse("", {"model.moe.capacity.factor=2"}).config.model.moe.capacity.dropless);
    EXPECT_TRUE(parse("model: {moe: {capacity: {factor: 2}}}\n", {"model.moe.capacity=dropless"})
                    .config.model.moe.capacity.dropless);
    expect_one(parse("", {"model.moe.capacity.rounding=round"}), "--set model.moe.capacity.rounding=round",
               "model.moe.capacity.rounding", "round");
    expect_one(parse("", {"model.moe.balance.load=0.1"}), "--set model.moe.balance.load=0.1",
               "model.moe.balance.load", "'top_k' has none");
}

TEST(Config, ExchangesThatDoNotFit) {
    expect_one(parse("parallel: {dedup_reduce: node}\n"), "c.yaml:1", "parallel.dedup_reduce",
               "the exchange is 'auto'", "parallel.exchange: dedup");
    expect_one(parse("parallel: {wire: bf16}\ntrain: {precision: fp64}\n"), "c.yaml:1", "parallel.wire",
               "rows of a model in fp64 do not travel as bf16");
    expect_one(parse("parallel: {wire: fp32}\ntrain: {precision: bf16}\n"), "c.yaml:1", "parallel.wire",
               "do not travel as fp32");
    EXPECT_EQ(parse("parallel: {wire: bf16, exchange: dedup, dedup_reduce: node}\n").diagnostics.text(), "");
}

TEST(Config, AlarmsCanBeChangedOneByOneAndSwitchedOff) {
    const LoadedConfig loaded = parse(
        "metrics:\n  alarms:\n    dead_experts: {threshold: 2, steps: 30, action: stop}\n    entropy: off\n",
        {"metrics.alarms.changed_expert.threshold=0.25", "metrics.alarms.loss_spike=off"});
    EXPECT_EQ(loaded.diagnostics.text(), "");
    const AlarmsConfig& alarms = loaded.config.metrics.alarms;
    EXPECT_FALSE(alarms.off);
    EXPECT_EQ(alarms.dead_experts.threshold, 2);
    EXPECT_EQ(alarms.dead_experts.steps, 30);
    EXPECT_EQ(alarms.dead_experts.action, "stop");
    EXPECT_TRUE(alarms.entropy.off);
    EXPECT_FALSE(alarms.changed_expert.off) << "a key of it switches it on";
    EXPECT_EQ(alarms.changed_expert.threshold, 0.25);
    EXPECT_TRUE(alarms.loss_spike.off);
    EXPECT_EQ(alarms.heldout_rise, AlarmsConfig().heldout_rise);
    EXPECT_TRUE(parse(to_yaml(loaded.config)).config == loaded.config);

    const LoadedConfig silent = parse("metrics: {alarms: off}");
    EXPECT_TRUE(silent.config.metrics.alarms.off);
    EXPECT_TRUE(parse(to_yaml(silent.config)).config.metrics.alarms.off);
    expect_one(parse("metrics:\n  alarms:\n    entropy: {threshold: 2}\n"), "c.yaml:3",
               "metrics.alarms.entropy.threshold", "2", "at most 1");
    expect_one(parse("metrics:\n  alarms:\n    changed_expert: {steps: 2}\n"), "c.yaml:3",
               "metrics.alarms.changed_expert.steps", "no key");
}

/// A word alone is the section's kind.
TEST(Config, PlacementOfExperts) {
    const LoadedConfig word = parse("parallel:\n  placement: load_aware\n", {"parallel.placement.every=7"});
    EXPECT_EQ(word.diagnostics.text(), "");
    EXPECT_EQ(word.config.parallel.placement.kind, "load_aware");
    EXPECT_EQ(word.config.parallel.placement.every, 7);
    EXPECT_EQ(parse_config(to_yaml(word.config), "again").config, word.config);
    const LoadedConfig mapping = parse("parallel: {placement: {kind: permuted, seed: 3}}\n");
    EXPECT_EQ(mapping.diagnostics.text(), "");
    EXPECT_EQ(mapping.config.parallel.placement.seed, 3);
    EXPECT_EQ(parse("", {"parallel.placement=permuted"}).config.parallel.placement.kind, "permuted");
    expect_one(parse("\nparallel: {placement: by_load}\n"), "c.yaml:2", "parallel.placement.kind",
               "'by_load' is unknown", "one of: contiguous, permuted, load_aware");
    expect_one(parse("\nparallel:\n  placement: {every: 5}\n"), "c.yaml:3", "parallel.placement.every",
               "has no meaning for kind contiguous", "kind: load_aware");
    expect_one(parse("\nparallel:\n  placement: permuted\nmodel: {moe: {experts: 0}}\n"), "c.yaml:3",
               "parallel.placement.kind", "no experts to place");
    expect_one(parse("parallel: {placement: [permuted]}\n"), "c.yaml:1", "parallel.placement",
               "a list is not a mapping");
    EXPECT_EQ(parse("", {"model.moe.router=switch", "model.moe.top_k=1"}).config.model.moe.router.kind,
              "switch");
}

TEST(Config, CopiesOfExperts) {
    const std::string key = "parallel.placement.copies";
    const auto copies = [](const std::string& placement, const std::string& model = "") {
        return parse(
            fmt::format("parallel: {{placement: {{{}}}}}\nmodel: {{moe: {{{}}}}}\n", placement, model));
    };
    EXPECT_EQ(copies("kind: load_aware, copies: 3", "experts: 4").diagnostics.text(), "");
    expect_one(copies("kind: load_aware, copies: -1"), "c.yaml:1", key, "-1", "between 0 and 64");
    expect_one(copies("kind: load_aware, copies: 65"), "c.yaml:1", key, "65", "");
    expect_one(copies("kind: load_aware, copies: 1.5"), "c.yaml:1", key, "1.5");
    expect_one(copies("kind: load_aware, copies: 4", "experts: 4"), "c.yaml:1", key,
               "4 places a rank for copies of other ranks' experts, of which there are 4 with its own",
               "less than model.moe.experts");
    expect_one(copies("kind: load_aware, copies: 1", "capacity: {factor: 1, pad: true}"), "c.yaml:1", key,
               "padded experts compute as much", "pad: false");
    expect_one(copies("kind: permuted, copies: 1"), "c.yaml:1", key, "has no meaning for kind permuted",
               "kind: load_aware");
    expect_one(copies("copies: 1"), "c.yaml:1", key, "has no meaning for kind contiguous",
               "kind: load_aware");
    expect_one(copies("kind: load_aware", "router: {kind: expert_choice, allow_noncausal: true}"), "c.yaml:1",
               "parallel.placement.kind", "all take as many tokens", "contiguous");
}

TEST(Config, AGateNeedsSharedExperts) {
    EXPECT_EQ(parse("model: {moe: {shared_experts: 2, shared_gate: true}}").diagnostics.text(), "");
    expect_one(parse("model:\n  moe:\n    shared_gate: true\n"), "c.yaml:3", "model.moe.shared_gate",
               "there is no shared expert to gate", "shared_experts: 1");
}

}  // namespace
}  // namespace moesaic
