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

TEST(Config, AGateNeedsSharedExperts) {
    EXPECT_EQ(parse("model: {moe: {shared_experts: 2, shared_gate: true}}").diagnostics.text(), "");
    expect_one(parse("model:\n  moe:\n    shared_gate: true\n"), "c.yaml:3", "model.moe.shared_gate",
               "there is no shared expert to gate", "shared_experts: 1");
}

}  // namespace
}  // namespace moesaic
