// Faults planted into the weights of real trainings: the watch sees them, the same on every rank and layout.
#include <gmock/gmock.h>

#include <cmath>

#include "launch/evaluation.h"
#include "launch/routing_probe.h"
#include "launch/run_watch.h"
#include "runtime/metrics/json_line.h"
#include "tests/support/tiny_run.h"
#include "tests/support/training_run.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct Layout {
    int world = 1, expert_parallel = 1;
};
const std::vector<Layout> kLayouts{{1, 1}, {2, 2}, {4, 2}, {8, 8}};

/// Uneven micro-batches; nothing is learnt, so that the fault stays.
RunSetup frozen_run(std::vector<std::string> overrides = {}) {
    overrides.insert(overrides.end(),
                     {"optimizer.lr=0", "train.batch_sequences=11", "train.micro_sequences=2",
                      "train.steps=8", "generalization.heldout_sequences=13", "model.moe.shared_experts=1"});
    return tiny_run(overrides);
}

template <class Change>
void change_gates(RankRuntime& runtime, const Change& change) {
    for (Parameter& parameter : runtime.store.parameters()) {
        if (!parameter.name.ends_with(".mlp.gate.weight")) continue;
        float* const values = parameter.value.as<float>();
        change(values, parameter.shape.rows(), parameter.shape.cols());
    }
    runtime.store.pack(*runtime.compute);
}

/// All logits are equal, and ties go to the lower number: every token visits experts 0 and 1.
void freeze_gates(RankRuntime& runtime) {
    change_gates(runtime, [](float* values, i64 rows, i64 cols) { std::fill_n(values, rows * cols, 0.0F); });
}

/// Runs `body` on every rank of a layout.
void on_ranks(const RunSetup& run, Layout layout,
              const std::function<void(RankRuntime&, std::mutex&)>& body) {
    std::mutex mutex;
    run_ranks(
        layout.world,
        [&](Communicator& world) {
            RuntimeOptions options;
            options.expert_parallel = layout.expert_parallel;
            RankRuntime runtime(run.config, run.spec, world, options);
            body(runtime, mutex);
            runtime.compute->synchronize();
            runtime.exchange->synchronize();
        },
        120);
}

/// What the last step says of its layers, in JSON's words; found to be the same on every rank.
std::string last_layers(const RunSetup& run, Layout layout, bool frozen, std::vector<std::string>& raised) {
    std::string text;
    on_ranks(run, layout, [&](RankRuntime& runtime, std::mutex& mutex) {
        if (frozen) freeze_gates(runtime);
        TrainingStep training(runtime, run.config, *run.dataset);
        RunWatch watch(run.config.metrics.alarms, run.spec);
        std::vector<std::string> kinds;
        for (i64 step = 1; step <= run.config.train.steps; ++step) {
            const StepResult result = training.forward_backward(step);
            training.update(step, result.grad_norm);
            for (const AlarmRecord& record :
                 watch.after_step(step, result, runtime.model.selection_biases()).raised)
                kinds.push_back(fmt::format("{} {} {}", record.kind, record.step, record.layer.value_or(-1)));
        }
        std::string mine;
        for (const ExpertsRecord& layer : watch.layers()) mine += JsonLine().fields_of(layer).text();
        const std::lock_guard lock(mutex);
        if (text.empty()) {
            text = mine;
            raised = kinds;
        }
        EXPECT_EQ(mine, text);
        EXPECT_EQ(kinds, raised);
    });
    return text;
}

TEST(PlantedFaults, AFrozenRouterRaisesEveryAlarmOfLoad) {
    const RunSetup run = frozen_run({"metrics.alarms.dead_experts.steps=5", "metrics.alarms.entropy.steps=4",
                                     "metrics.alarms.load_max_over_mean={threshold: 3.5, steps: 6}"});
    std::vector<std::string> raised;
    const std::string one = last_layers(run, {1, 1}, true, raised);
    EXPECT_THAT(raised, ElementsAre("entropy 4 0", "entropy 4 1", "dead_experts 5 0", "dead_experts 5 1",
                                    "load_max_over_mean 6 0", "load_max_over_mean 6 1"));
    // Eleven sequences of 16 tokens, of which each visits both experts; ln 8 is the entropy of equal logits.
    EXPECT_THAT(one, testing::HasSubstr(R"("load":[176,176,0,0,0,0,0,0])"));
    EXPECT_THAT(one, testing::HasSubstr(R"("idle_steps":[0,0,8,8,8,8,8,8],"router_entropy":2.0794)"));
    EXPECT_THAT(one, testing::HasSubstr(R"("first_weight_mean":0.5,"dropped_fraction":0,)"));
    for (const Layout layout : kLayouts)
        EXPECT_EQ(last_layers(run, layout, true, raised), one) << layout.world;
}

TEST(PlantedFaults, AFreshRouterRaisesNone) {
    const RunSetup run = frozen_run();
    std::vector<std::string> raised;
    const std::string one = last_layers(run, {1, 1}, false, raised);
    EXPECT_THAT(raised, IsEmpty());
    for (const Layout layout : kLayouts) {
        EXPECT_EQ(last_layers(run, layout, false, raised), one) << layout.world;
        EXPECT_THAT(raised, IsEmpty());
    }
}

/// Shares of three looks: as it was; experts renamed (7 - e); one layer's router left alone in between.
std::vector<std::vector<RoutingChange>> looks(const RunSetup& run, Layout layout) {
    std::vector<std::vector<RoutingChange>> all;
    on_ranks(run, layout, [&](RankRuntime& runtime, std::mutex& mutex) {
        const std::vector<i64> windows = heldout_windows(run);
        RoutingProbe probe(runtime);
        const auto look = [&] {
            probe.begin();
            (void)evaluate_windows(runtime, run, windows, true, &probe);
            return probe.finish();
        };
        std::vector<std::vector<RoutingChange>> mine;
        mine.push_back(look());
        mine.push_back(look());
        change_gates(runtime, [](float* values, i64 rows, i64 cols) {
            for (i64 e = 0; e < rows / 2; ++e)
                std::swap_ranges(values + e * cols, values + (e + 1) * cols, values + (rows - 1 - e) * cols);
        });
        mine.push_back(look());
        change_gates(runtime, [](float* values, i64, i64 cols) { values[cols] += 0.05F; });
        mine.push_back(look());
        const std::lock_guard lock(mutex);
        if (all.empty()) all = mine;
        EXPECT_EQ(mine, all);
    });
    return all;
}

TEST(PlantedFaults, ReroutedTokensAreCounted) {
    const RunSetup run = frozen_run();
    const std::vector<std::vector<RoutingChange>> one = looks(run, {1, 1});
    ASSERT_EQ(one.size(), 4U);
    EXPECT_THAT(one[0], IsEmpty()) << "nothing to compare with";
    EXPECT_THAT(one[1], ElementsAre(RoutingChange{0, 0}, RoutingChange{1, 0}));
    for (const RoutingChange& change : one[2]) EXPECT_GT(change.share, 0.7) << change.layer;
    for (const RoutingChange& change : one[3]) {
        EXPECT_GT(change.share, 0) << change.layer;
        EXPECT_LT(change.share, 0.7) << change.layer;
    }
    for (const Layout layout : kLayouts) EXPECT_EQ(looks(run, layout), one) << layout.world;
    RunWatch watch(
        [] {
            AlarmsConfig config;
            config.changed_expert.off = false;
            return config;
        }(),
        run.spec);
    EXPECT_THAT(watch.after_evaluation(1, 2.0, one[1]).raised, IsEmpty());
    EXPECT_EQ(watch.after_evaluation(2, 2.0, one[2]).raised.size(), 2U);
}

/// More held-out data than the probe holds: only its first sequences count.
TEST(PlantedFaults, TheProbeHasABound) {
    const RunSetup run = frozen_run({"task.data.seq_len=4096", "generalization.heldout_sequences=7"});
    const auto of = [&](Layout layout) { return looks(run, layout)[3]; };
    const std::vector<RoutingChange> one = of({1, 1});
    ASSERT_EQ(one.size(), 2U);
    // 16384 tokens are four sequences: a share is a multiple of 1 / 16384.
    EXPECT_EQ(one[0].share * 16384, std::round(one[0].share * 16384));
    EXPECT_EQ(of({4, 4}), one);
}

}  // namespace
}  // namespace moesaic
