// Every alarm against values in which its fault is planted: it fires once, names what is wrong, and only it.
#include "launch/run_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr i64 kExperts = 4;

/// Two layers, of which the second has experts: four, of which a token visits one.
ModelSpec small_spec() {
    ModelSpec spec;
    spec.layers = 2;
    spec.every = 2;
    spec.experts = kExperts;
    spec.top_k = 1;
    return spec;
}

/// A run whose steps are well but for what a test changes.
struct WatchedRun {
    explicit WatchedRun(const AlarmsConfig& config = {}) : watch(config, small_spec()) {
        good.expert_counts = {5, 6, 5, 4};
        good.routers = {{0.6, 0.7, 1.1, 0.0}};
        good.loss = 2;
    }
    AlarmVerdict step(const StepResult& result, std::vector<double> bias = {}) {
        AlarmVerdict verdict = watch.after_step(++steps, result, {std::move(bias)});
        for (const AlarmRecord& record : verdict.raised) raised.push_back(record);
        for (const std::string& text : verdict.cleared) cleared.push_back(text);
        return verdict;
    }
    void repeat(i64 count, const StepResult& result, const std::vector<double>& bias = {}) {
        for (i64 i = 0; i < count; ++i) (void)step(result, bias);
    }
    [[nodiscard]] std::vector<std::string> kinds() const {
        std::vector<std::string> names;
        for (const AlarmRecord& record : raised) names.push_back(record.kind);
        return names;
    }

    RunWatch watch;
    StepResult good;
    i64 steps = 0;
    std::vector<AlarmRecord> raised;
    std::vector<std::string> cleared;
};

/// Only the alarm under test, so that its neighbours do not speak as well.
AlarmsConfig only(AlarmConfig AlarmsConfig::*one) {
    AlarmsConfig config;
    for (AlarmConfig AlarmsConfig::*each :
         {&AlarmsConfig::dead_experts, &AlarmsConfig::load_max_over_mean, &AlarmsConfig::entropy,
          &AlarmsConfig::dropped_fraction, &AlarmsConfig::changed_expert, &AlarmsConfig::bias_saturation,
          &AlarmsConfig::loss_spike, &AlarmsConfig::heldout_rise, &AlarmsConfig::leak,
          &AlarmsConfig::overfitting_onset, &AlarmsConfig::bound_violated}) {
        (config.*each).off = each != one;
    }
    return config;
}

void expect_alarm(const AlarmRecord& record, const std::string& kind, i64 step, std::optional<i64> layer,
                  const std::string& words) {
    EXPECT_EQ(record.kind, kind);
    EXPECT_EQ(record.step, step);
    EXPECT_EQ(record.layer, layer);
    EXPECT_THAT(record.message, HasSubstr(words));
    EXPECT_THAT(record.message, HasSubstr("; "));  // and what to do
    EXPECT_TRUE(record.value && record.threshold);
}

TEST(RunWatch, SaysNothingWhereAllIsWell) {
    WatchedRun run;
    run.repeat(500, run.good, {0.1, 0.2, 0.0, -0.1});
    for (i64 i = 0; i < 5; ++i)
        EXPECT_THAT(run.watch.after_evaluation(500, 2.0 - 0.1 * static_cast<double>(i), {{1, 0.4}}).raised,
                    IsEmpty());
    EXPECT_THAT(run.raised, IsEmpty());
    EXPECT_THAT(run.watch.layers()[0].alarms, IsEmpty());
}

TEST(RunWatch, MeasuresTheLayer) {
    WatchedRun run;
    StepResult uneven = run.good;
    uneven.expert_counts = {1, 0, 3, 4};
    run.repeat(3, uneven, {0.25, -0.5, 0, 0});
    ASSERT_EQ(run.watch.layers().size(), 1U);
    const ExpertsRecord layer = run.watch.layers()[0];
    EXPECT_EQ(layer.step, 3);
    EXPECT_EQ(layer.layer, 1);
    EXPECT_THAT(layer.load, ElementsAre(1, 0, 3, 4));
    EXPECT_EQ(layer.dead, 1);
    EXPECT_THAT(layer.idle_steps, ElementsAre(0, 3, 0, 0));
    EXPECT_EQ(layer.max_over_mean, 2);
    EXPECT_EQ(layer.weight_mean, 0.6);
    EXPECT_EQ(layer.first_weight_mean, 0.7);
    EXPECT_EQ(layer.router_entropy, 1.1);
    EXPECT_EQ(layer.bias_span, 0.75);
    EXPECT_EQ(run.watch.worst_max_over_mean(), 2);
    (void)run.step(run.good);
    EXPECT_THAT(run.watch.layers()[0].idle_steps, ElementsAre(0, 0, 0, 0));
}

TEST(RunWatch, DeadExperts) {
    AlarmsConfig config = only(&AlarmsConfig::dead_experts);
    config.dead_experts.steps = 20;
    WatchedRun run(config);
    StepResult dead = run.good;
    dead.expert_counts = {10, 0, 10, 0};
    run.repeat(19, dead);
    EXPECT_THAT(run.raised, IsEmpty());
    run.repeat(30, dead);
    ASSERT_EQ(run.raised.size(), 1U) << "once";
    expect_alarm(run.raised[0], "dead_experts", 20, 1, "2 of 4 experts (1, 3) got no token for 20 steps");
    EXPECT_EQ(run.raised[0].expert, 1);
    EXPECT_EQ(run.raised[0].value, 2);
    EXPECT_THAT(run.watch.layers()[0].alarms, ElementsAre("dead_experts"));
    (void)run.step(run.good);
    EXPECT_THAT(run.cleared, ElementsAre("step 50: alarm dead_experts of layer 1 is over: 0"));
    EXPECT_THAT(run.watch.layers()[0].alarms, IsEmpty());
    run.repeat(20, dead);
    EXPECT_EQ(run.raised.size(), 2U) << "again when it comes back";
}

/// What is raised for one layer, or for the run, is not raised for another layer.
TEST(RunWatch, AnAlarmIsOfItsLayer) {
    ModelSpec spec = small_spec();
    spec.every = 1;  // both layers have experts
    AlarmsConfig config;
    config.entropy.steps = 1;
    config.loss_spike.steps = 1;
    RunWatch watch(config, spec);
    StepResult result;
    result.expert_counts = {5, 5, 5, 5, 0, 20, 0, 0};
    result.routers.resize(2);
    result.loss = 1;
    EXPECT_EQ(watch.after_step(1, result, {{}, {}}).raised.size(), 1U);
    result.loss = 2;
    EXPECT_EQ(watch.after_step(2, result, {{}, {}}).raised.size(), 1U) << "the loss";
    EXPECT_THAT(watch.layers()[0].alarms, IsEmpty());
    EXPECT_THAT(watch.layers()[1].alarms, ElementsAre("entropy"));
}

TEST(RunWatch, LoadMaxOverMean) {
    AlarmsConfig config = only(&AlarmsConfig::load_max_over_mean);
    config.load_max_over_mean.threshold = 3;
    config.load_max_over_mean.steps = 5;
    WatchedRun run(config);
    StepResult hot = run.good;
    hot.expert_counts = {1, 1, 16, 2};
    run.repeat(50, hot);
    ASSERT_EQ(run.raised.size(), 1U);
    expect_alarm(run.raised[0], "load_max_over_mean", 5, 1, "expert 2 has 3.20 times the mean load");
    EXPECT_EQ(run.raised[0].expert, 2);
}

TEST(RunWatch, Entropy) {
    WatchedRun run(only(&AlarmsConfig::entropy));
    StepResult collapsed = run.good;
    collapsed.expert_counts = {0, 20, 0, 0};
    run.repeat(70, collapsed);
    ASSERT_EQ(run.raised.size(), 1U);
    expect_alarm(run.raised[0], "entropy", 50, 1, "evenness is 0.000");
}

TEST(RunWatch, DroppedFraction) {
    WatchedRun run(only(&AlarmsConfig::dropped_fraction));
    StepResult dropping = run.good;
    dropping.routers[0].dropped = 0.25;
    run.repeat(70, dropping);
    ASSERT_EQ(run.raised.size(), 1U);
    expect_alarm(run.raised[0], "dropped_fraction", 50, 1, "25.0 % of the choices are dropped");
    EXPECT_EQ(run.watch.dropped_fraction(), 0.25);
}

TEST(RunWatch, BiasSaturation) {
    WatchedRun run(only(&AlarmsConfig::bias_saturation));
    run.repeat(60, run.good, {0, 0.5, 0.3, -0.4});
    EXPECT_THAT(run.raised, IsEmpty());
    run.repeat(60, run.good, {0, 0.5, 0.3, -0.75});
    ASSERT_EQ(run.raised.size(), 1U);
    expect_alarm(run.raised[0], "bias_saturation", 110, 1, "selection biases lie 1.25 apart");
}

TEST(RunWatch, LossSpike) {
    AlarmsConfig config = only(&AlarmsConfig::loss_spike);
    config.loss_spike.steps = 10;
    WatchedRun run(config);
    StepResult spike = run.good;
    spike.loss = 3.2;
    (void)run.step(spike);  // no past to compare with
    run.repeat(9, run.good);
    (void)run.step(spike);
    (void)run.step(spike);
    ASSERT_EQ(run.raised.size(), 1U);
    expect_alarm(run.raised[0], "loss_spike", 11, std::nullopt,
                 "the loss is 3.200, 1.60 times the median of the 10 steps before");
    (void)run.step(run.good);
    EXPECT_EQ(run.cleared.size(), 1U);
}

TEST(RunWatch, HeldoutRise) {
    WatchedRun run(only(&AlarmsConfig::heldout_rise));
    const auto evaluate = [&](i64 step, double loss) {
        return run.watch.after_evaluation(step, loss, {}).raised;
    };
    EXPECT_THAT(evaluate(0, 5.0), IsEmpty());
    EXPECT_THAT(evaluate(100, 2.0), IsEmpty());
    EXPECT_THAT(evaluate(200, 2.15), IsEmpty());
    EXPECT_THAT(run.watch.after_evaluation(250, std::nullopt, {}).raised, IsEmpty());
    const std::vector<AlarmRecord> raised = evaluate(300, 2.3);
    ASSERT_EQ(raised.size(), 1U);
    expect_alarm(raised[0], "heldout_rise", 300, std::nullopt,
                 "2.300, 1.15 times its lowest, 2.000 at step 100");
}

TEST(RunWatch, ChangedExpert) {
    WatchedRun run(only(&AlarmsConfig::changed_expert));
    EXPECT_THAT(run.watch.after_evaluation(100, 2.0, {{1, 0.4}}).raised, IsEmpty());
    const std::vector<AlarmRecord> raised = run.watch.after_evaluation(200, 2.0, {{1, 0.6}}).raised;
    ASSERT_EQ(raised.size(), 1U);
    expect_alarm(raised[0], "changed_expert", 200, 1, "60 % of the held-out probe's tokens");
    EXPECT_THAT(run.watch.health(false).changed, ElementsAre(0.6));
}

EvalRecord healthy_evaluation(i64 step) {
    EvalRecord record;
    record.step = step;
    record.train_unseen_loss = 2.0;
    record.unseen_difference = {0.1, -0.2, 0.4};
    record.gap = 0.05;
    record.gap_low = -0.1;
    record.gap_high = 0.2;
    record.gap_rise = {0.05, -0.01, 0.11};
    record.gaps["ramp"] = {0.05, -0.2, 0.3};
    record.bounds["published"].value = 0.04;
    return record;
}

std::vector<AlarmRecord> look(WatchedRun& run, const EvalRecord& record) {
    AlarmVerdict verdict;
    run.watch.look_at_gap(record, verdict);
    return verdict.raised;
}

TEST(RunWatch, LeakOfTheHeldOutShard) {
    WatchedRun run;
    EvalRecord record = healthy_evaluation(100);
    EXPECT_THAT(look(run, record), IsEmpty());
    record.unseen_difference = {0.9, 0.3, 1.5};  // at least 15 % of 2.0
    const std::vector<AlarmRecord> raised = look(run, record);
    ASSERT_EQ(raised.size(), 1U);
    expect_alarm(raised[0], "leak", 100, {}, "0.900 nats [0.300, 1.500] below");
    EXPECT_DOUBLE_EQ(*raised[0].value, 0.15);
    EXPECT_THAT(look(run, record), IsEmpty()) << "once";
}

TEST(RunWatch, OnsetOfOverfitting) {
    WatchedRun run;
    EvalRecord record = healthy_evaluation(100);
    record.gap_rise = {0.3, 0.1, 0.5};
    EXPECT_THAT(look(run, record), IsEmpty()) << "the gap may still be none";
    record.gap = 0.4;
    record.gap_low = 0.25;
    const std::vector<AlarmRecord> raised = look(run, record);
    ASSERT_EQ(raised.size(), 1U);
    expect_alarm(raised[0], "overfitting_onset", 100, {}, "grew by 0.300 [0.100, 0.500]");
    WatchedRun other;
    record.gap_rise = {0.3, -0.1, 0.7};
    EXPECT_THAT(look(other, record), IsEmpty()) << "open, but not known to widen";
}

/// 1000 constant experts behind a hash on 10,000 noise labels: the exact gap, the published expression with
/// one expert's complexity, and our bound (theory of runtime/metrics/bounds).
TEST(RunWatch, AGapAboveItsBound) {
    WatchedRun run;
    EvalRecord record = healthy_evaluation(100);
    record.gaps["ramp"] = {0.1245, 0.1, 0.149};
    record.bounds["published"].value = 0.0456;
    record.bounds["corrected_frozen"].value = 0.3285;
    record.bounds["heldout"].value = 0.01;  // bounds a loss, no gap
    record.bounds["corrected_uniform"].value = 0.05;
    record.bounds["corrected_uniform"].assume("gate_covered", AssumptionStatus::violated, "other gates");
    const std::vector<AlarmRecord> raised = look(run, record);
    ASSERT_EQ(raised.size(), 1U);
    expect_alarm(raised[0], "bound_violated", 100, {}, "at least 0.100, and published says at most 0.046");
    WatchedRun corrected;
    record.bounds.erase("published");
    EXPECT_THAT(look(corrected, record), IsEmpty()) << "never of ours";
}

TEST(RunWatch, TheHeaviestActionCounts) {
    AlarmsConfig config;
    config.dead_experts.steps = config.entropy.steps = config.load_max_over_mean.steps = 1;
    config.load_max_over_mean.threshold = 3;
    config.dead_experts.action = "stop";
    config.entropy.action = "checkpoint";
    WatchedRun run(config);
    StepResult collapsed = run.good;
    collapsed.expert_counts = {0, 20, 0, 0};
    const AlarmVerdict verdict = run.step(collapsed);
    EXPECT_THAT(run.kinds(), ElementsAre("dead_experts", "load_max_over_mean", "entropy"));
    EXPECT_EQ(verdict.action, AlarmAction::stop);
    EXPECT_THAT(verdict.stop_reason,
                HasSubstr("alarm dead_experts of layer 1: 3 of 4 experts (0, 2, 3) got no token"));
    EXPECT_EQ(run.step(collapsed).action, AlarmAction::none);
}

/// Twenty steps with a dead expert, a collapse and two spikes, and an evaluation after every fifth; begun
/// anew from its checkpoint after step `cut`.
std::vector<std::string> words_of_a_run(i64 cut) {
    AlarmsConfig config;
    config.dead_experts.steps = config.loss_spike.steps = 6;
    config.entropy.steps = config.load_max_over_mean.steps = 4;
    config.load_max_over_mean.threshold = 3;
    WatchedRun first(config), second(config);
    std::vector<std::string> words;
    for (i64 step = 1; step <= 20; ++step) {
        RunWatch& watch = (step <= cut ? first : second).watch;
        StepResult result = first.good;
        result.expert_counts = {10, 5, 5, 0};
        if (step >= 6 && step <= 13) result.expert_counts = {0, 0, 20, 0};
        if (step == 9 || step == 15) result.loss = 4;
        std::vector<AlarmVerdict> verdicts{watch.after_step(step, result, {{}})};
        if (step % 5 == 0) verdicts.push_back(watch.after_evaluation(step, step == 5 ? 2.0 : 2.5, {}));
        for (const AlarmVerdict& verdict : verdicts) {
            for (const AlarmRecord& record : verdict.raised)
                words.push_back(fmt::format("{}: {}: {}", step, record.kind, record.message));
            words.insert(words.end(), verdict.cleared.begin(), verdict.cleared.end());
        }
        if (step == cut) second.watch.begin(watch.observers());
    }
    return words;
}

TEST(RunWatch, GoesOnAfterAResumptionAsItWouldHaveWithout) {
    const std::vector<std::string> straight = words_of_a_run(20);
    for (const std::string kind :
         {"dead_experts", "load_max_over_mean", "entropy", "loss_spike", "heldout_rise"})
        EXPECT_THAT(straight, testing::Contains(HasSubstr(": " + kind + ": ")));
    EXPECT_THAT(straight, testing::Contains(HasSubstr("is over")));
    for (i64 cut = 1; cut < 20; ++cut) EXPECT_EQ(words_of_a_run(cut), straight) << cut;
    WatchedRun fresh;
    fresh.watch.begin({{"generalization", {1, 2, 3}}});
    EXPECT_THAT(fresh.watch.observers(), IsEmpty()) << "nothing to remember, nothing in the checkpoint";
}

/// Such a run stands still until somebody has changed something: else a job that dies between the checkpoint
/// and its exit code would go on.
TEST(RunWatch, AnAlarmThatStoppedTheRunStopsItAgain) {
    AlarmsConfig stops = only(&AlarmsConfig::entropy), warns = stops;
    stops.entropy.action = "stop";
    WatchedRun run(stops), again(stops), told(warns), mended(stops);
    StepResult collapsed = run.good;
    collapsed.expert_counts = {0, 20, 0, 0};
    run.repeat(stops.entropy.steps, collapsed);
    ASSERT_THAT(run.kinds(), ElementsAre("entropy"));
    for (WatchedRun* next : {&again, &told, &mended}) next->watch.begin(run.watch.observers());
    EXPECT_EQ(again.step(collapsed).action, AlarmAction::stop);
    told.repeat(2 * warns.entropy.steps, collapsed);
    EXPECT_THAT(told.raised, IsEmpty()) << "it was said already";
    EXPECT_THAT(told.watch.layers()[0].alarms, ElementsAre("entropy"));
    mended.repeat(2, mended.good);
    mended.repeat(stops.entropy.steps - 1, collapsed);
    EXPECT_THAT(mended.raised, IsEmpty());
}

TEST(RunWatch, OffMeansOff) {
    AlarmsConfig config;
    config.off = true;
    WatchedRun run(config);
    StepResult collapsed = run.good;
    collapsed.expert_counts = {0, 20, 0, 0};
    run.repeat(300, collapsed);
    EXPECT_THAT(run.raised, IsEmpty());
    EXPECT_EQ(run.watch.layers()[0].dead, 3) << "still measured";
}

TEST(RunWatch, BearsAModelWithoutExperts) {
    ModelSpec spec;
    spec.experts = 0;
    RunWatch watch({}, spec);
    StepResult result;
    result.loss = 2;
    EXPECT_THAT(watch.after_step(1, result, {}).raised, IsEmpty());
    EXPECT_EQ(watch.worst_max_over_mean(), 1);
    EXPECT_EQ(watch.dropped_fraction(), 0);
    EXPECT_THAT(watch.health(true).layers, IsEmpty());
}

}  // namespace
}  // namespace moesaic
