// Every alarm in a training whose cause is planted, and none of it in the same training without the cause.
// Those that look at sequences met and not yet met: generalization_test.cpp.
#include <gmock/gmock.h>

#include <fstream>
#include <set>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

/// A cause and its absence, both on top of kWatched.
struct Cause {
    std::string name;
    Words planted, clean;
    std::vector<std::string> of_layers, of_run;  ///< kinds of the alarms of every layer, and of the run
};

void PrintTo(const Cause& cause, std::ostream* out) {
    *out << cause.name;
}

/// Every alarm is on, and soon raised.
const Words kWatched{"train.steps=12",
                     "train.eval_every=3",
                     "train.checkpoint_every=1000",
                     "train.log_every=12",
                     "task.data.seq_len=16",
                     "generalization.heldout_sequences=16",
                     "generalization.probe_sequences=8",
                     "metrics.sinks=[jsonl]",
                     "train.spike={threshold: 3, steps: 3}",
                     "metrics.alarms.dead_experts.steps=5",
                     "metrics.alarms.load_max_over_mean={threshold: 3.5, steps: 5}",
                     "metrics.alarms.entropy.steps=5",
                     "metrics.alarms.dropped_fraction.steps=5",
                     "metrics.alarms.bias_saturation.steps=1",
                     "metrics.alarms.loss_spike.steps=3",
                     "metrics.alarms.changed_expert.threshold=0.8"};

std::vector<Cause> causes() {
    const std::string all_on_one = "model.moe.router.traffic=hot_expert:1";
    return {{"EveryTokenVisitsOneExpertOfFour",
             {"model.moe.top_k=1", "model.moe.router=uniform", all_on_one, "model.moe.capacity={factor: 2}"},
             {"model.moe.top_k=1", "model.moe.router=uniform", "model.moe.capacity={factor: 2}"},
             {"dead_experts", "load_max_over_mean", "entropy", "dropped_fraction"},
             {}},
            {"StepsOfTheBiasAreAsLargeAsScores",
             {"model.moe.router=sigmoid_bias", "model.moe.router.bias_rate=1"},
             {"model.moe.router=sigmoid_bias"},
             {"bias_saturation"},
             {}},
            {"UpdatesAreThousandsOfTimesTooLarge",
             {"optimizer.lr=10", "optimizer.schedule.warmup=10"},
             {},
             {"changed_expert"},
             {"loss_spike", "heldout_rise", "gradient_spike"}}};
}

/// The layers that it was raised for, null for the run.
std::set<Json> places_of(const std::vector<Json>& records, const std::string& kind) {
    std::set<Json> places;
    for (const Json& one : events(records, "alarm"))
        if (one.at("kind") == kind) places.insert(one.at("layer"));
    return places;
}

class PlantedAlarms : public testing::TestWithParam<Cause> {};

TEST_P(PlantedAlarms, AreRaisedByTheirCauseAlone) {
    const Cause& cause = GetParam();
    const auto train = [](Words overrides) {
        const ScratchFolder scratch;
        overrides.insert(overrides.begin(), kWatched.begin(), kWatched.end());
        return train_tiny(scratch / "out", threads(2), overrides);
    };
    const auto planted = train(cause.planted);
    for (const std::string& kind : cause.of_layers)
        EXPECT_EQ(places_of(planted, kind), (std::set<Json>{0, 1})) << kind;
    for (const std::string& kind : cause.of_run)
        EXPECT_EQ(places_of(planted, kind), std::set<Json>{nullptr}) << kind;
    EXPECT_THAT(events(train(cause.clean), "alarm"), testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(All, PlantedAlarms, testing::ValuesIn(causes()),
                         [](const auto& cause) { return cause.param.name; });

/// Held-out data of another kind than the training's: no bound of the gap holds, and one that is small enough
/// says so. Two experts of width 4, one letter of training.
TEST(PlantedBound, WhoseAssumptionIsBrokenIsNoticed) {
    const auto train = [](const std::string& heldout) {
        const ScratchFolder scratch;
        const std::string path = scratch / "planted.txt";
        std::ofstream(path) << std::string(2560 * 8, 'a') << heldout;
        return train_tiny(scratch / "out", threads(2),
                          {"task.data.path=" + path,
                           "task.data.seq_len=8",
                           "task.data.validation=0.1111",
                           "model.width=4",
                           "model.heads=1",
                           "model.layers=1",
                           "model.moe.experts=2",
                           "model.moe.top_k=1",
                           "model.moe.hidden=4",
                           "train.steps=20",
                           "train.eval_every=20",
                           "train.checkpoint_every=1000",
                           "train.batch_sequences=128",
                           "train.micro_sequences=64",
                           "optimizer.lr=0.1",
                           "generalization.probe_sequences=128",
                           "generalization.unit=sequence",
                           "metrics.sinks=[jsonl]",
                           "metrics.alarms.heldout_rise=off",
                           "metrics.alarms.entropy=off",
                           "metrics.alarms.load_max_over_mean=off",
                           "metrics.alarms.dead_experts=off"});
    };
    EXPECT_EQ(places_of(train(std::string(320 * 8, 'z')), "bound_violated"), std::set<Json>{nullptr});
    EXPECT_THAT(events(train(std::string(320 * 8, 'a')), "alarm"), testing::IsEmpty());
}

}  // namespace
}  // namespace moesaic::e2e
