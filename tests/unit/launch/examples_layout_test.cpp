// Tasks beside language modelling on every layout: the same losses, routing and gradients, bit for bit or
// within rounding, with batches that no number of ranks divides.
#include <gtest/gtest.h>

#include "comm/thread_communicator.h"
#include "launch/evaluation.h"
#include "launch/layout_check.h"
#include "launch/run_setup.h"
#include "tests/support/source_folder.h"

#include <mutex>

namespace moesaic {
namespace {

using Overrides = std::vector<std::string>;

RunSetup example_run(const std::string& config, const Overrides& overrides) {
    const std::string root = MOESAIC_SOURCE_DIR;
    Overrides all;
    if (config == "digits" || config == "weather")
        all.push_back(fmt::format("task.data.path={}/configs/data/{}.csv", root,
                                  config == "digits" ? "digits" : "weather-normals"));
    all.insert(all.end(), overrides.begin(), overrides.end());
    return load_run(root + "/configs/" + config + ".yaml", all);
}

void expect_all_ok(const RunSetup& run, const std::vector<int>& worlds, std::size_t layouts) {
    const std::vector<LayoutResult> results = check_layouts(run, {worlds, 3, {}});
    EXPECT_EQ(results.size(), layouts);
    for (const LayoutResult& one : results) {
        const std::string name = fmt::format("{} ranks, expert-parallel {}", one.world, one.expert_parallel);
        EXPECT_TRUE(one.ok) << name << ": " << one.why;
        // In fp64 the sums of gradients have no more digits than the weights.
        EXPECT_LE(one.later_loss_difference, run.config.train.precision == "fp64" ? 1e-14 : 0)
            << name << ": training is the same bits";
        EXPECT_GT(one.loss, 0) << name;
    }
}

/// 11 examples in micro-batches of 2: six micro-batches, the last of one example, so that ranks are idle.
const Overrides kUneven{"train.batch_sequences=11", "train.micro_sequences=2"};

Overrides with(Overrides overrides, const Overrides& more) {
    overrides.insert(overrides.end(), more.begin(), more.end());
    return overrides;
}

TEST(ExamplesLayout, Classification) {
    for (const char* precision : {"fp32", "fp64"}) {
        SCOPED_TRACE(precision);
        expect_all_ok(example_run("digits", with(kUneven, {std::string("train.precision=") + precision})),
                      {1, 2, 3, 4, 8}, 11);
    }
}

/// More examples and no kinks: rounding to bf16 sends some of a few examples to other experts than fp64 does.
TEST(ExamplesLayout, ClassificationInBf16) {
    expect_all_ok(example_run("digits", {"train.precision=bf16", "model.moe.activation=gelu",
                                         "train.batch_sequences=253", "train.micro_sequences=32"}),
                  {1, 2, 4}, 6);
}

TEST(ExamplesLayout, RegressionWithoutResiduals) {
    expect_all_ok(example_run("weather", with(kUneven, {"model.residual=false", "model.width=8"})), {1, 2, 4},
                  6);
}

TEST(ExamplesLayout, Sraven) {
    expect_all_ok(example_run("sraven", with(kUneven, {"model.width=16", "model.moe.hidden=16",
                                                       "task.data.samples=64"})),
                  {1, 2, 4, 8}, 10);
}

/// No row travels: every rank computes the cells it has, and an expert's gradient has the one-rank run's
/// bits.
TEST(ExamplesLayout, Momlp) {
    for (const char* precision : {"fp32", "fp64", "bf16"}) {
        SCOPED_TRACE(precision);
        // A slope's gradient is a sum that nearly cancels: exact comparisons in fp64 alone.
        const char* const activation = precision == std::string("fp64") ? "prelu" : "gelu";
        const RunSetup run =
            example_run("momlp", {"train.batch_sequences=24", "model.moe.experts=8", "task.data.samples=500",
                                  "model.width=8", std::string("model.moe.activation=") + activation,
                                  std::string("train.precision=") + precision});
        expect_all_ok(run, {1, 2, 4, 8}, 4);
    }
}

/// Held-out scores of the initial weights, and the bytes of rows that were sent on the way.
std::pair<ShardScores, i64> scores_on(const RunSetup& run, int world) {
    std::pair<ShardScores, i64> found;
    std::mutex mutex;
    run_ranks(world, [&](Communicator& communicator) {
        RankRuntime runtime(run.config, run.spec, communicator, {});
        ShardScores scores = evaluate_windows(runtime, run, heldout_windows(run), true);
        const std::lock_guard lock(mutex);
        EXPECT_FALSE(scores.loss.empty()) << "every rank knows all scores";
        if (communicator.rank() == 0) found.first = std::move(scores);
        found.second += communicator.ledger().of_rows().to_others();
    });
    return found;
}

TEST(ExamplesLayout, EvaluationIsTheSameBitsOnEveryLayout) {
    const Overrides small{"model.moe.experts=8", "task.data.samples=300", "train.batch_sequences=24",
                          "generalization.heldout_sequences=50"};
    const std::vector<RunSetup> runs = [&] {
        std::vector<RunSetup> all;
        all.push_back(example_run("digits", {"generalization.heldout_sequences=50"}));
        all.push_back(example_run("momlp", small));
        return all;
    }();
    for (const RunSetup& run : runs) {
        SCOPED_TRACE(run.config.run.name);
        const auto [single, nothing_sent] = scores_on(run, 1);
        ASSERT_EQ(single.loss.size(), 50u);
        EXPECT_GT(single.mean_error(), 0);
        for (const int world : {2, 4, 8}) {
            const auto [scores, sent] = scores_on(run, world);
            EXPECT_EQ(scores.loss, single.loss) << world;
            EXPECT_EQ(scores.error, single.error) << world;
            EXPECT_EQ(scores.mean_loss(), single.mean_loss()) << world;
            EXPECT_EQ(sent == 0, run.config.model.kind == "momlp") << world;
        }
    }
}

TEST(ExamplesLayout, ErrorsAreInTheTargetsUnit) {
    const RunSetup run = example_run("weather", {"generalization.heldout_sequences=200"});
    const ShardScores scores = scores_on(run, 1).first;
    double squares = 0;
    for (std::size_t i = 0; i < scores.loss.size(); ++i) {
        const double degrees = std::sqrt(scores.loss[i]) * run.dataset->distance_unit();
        EXPECT_DOUBLE_EQ(scores.error[i], degrees);
        squares += degrees * degrees;
    }
    EXPECT_DOUBLE_EQ(scores.mean_error(), std::sqrt(squares / static_cast<double>(scores.loss.size())));
    EXPECT_NEAR(run.dataset->distance_unit(), 5.2, 1) << "the temperature's standard deviation";
}

}  // namespace
}  // namespace moesaic
