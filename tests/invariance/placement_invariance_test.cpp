// Experts that lie elsewhere, or move while training, change no bit of anything.
#include <unistd.h>

#include <filesystem>

#include "launch/checkpointer.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/support/uneven_training.h"

namespace moesaic {
namespace {

const std::vector<std::string> kMoving{"parallel.placement=load_aware", "parallel.placement.every=2",
                                       "parallel.placement.min_gain=0"};

class PlacementInvariance : public UnevenTraining {
  protected:
    [[nodiscard]] TrainingRun six_steps(DType dtype, const std::vector<std::string>& overrides) {
        TrainingRun run = training_run(dtype, overrides);
        run.last_step = 6;
        return run;
    }
    /// The same training with and without the overrides in `placed`, on every layout.
    void compare(DType dtype, std::vector<std::string> overrides, const std::vector<std::string>& placed,
                 const std::vector<Layout>& layouts) {
        const TrainingRun staying = six_steps(dtype, overrides);
        overrides.insert(overrides.end(), placed.begin(), placed.end());
        // Across layouts f64 rounds its sums of gradients; f32 and bf16 do not.
        const bool exact = dtype != DType::f64;
        const TrainingOutcome one = train_on(staying, {1, 1});
        for (const Layout layout : layouts) {
            SCOPED_TRACE(fmt::format("{}, {} ranks, expert-parallel {}", name_of(dtype), layout.world,
                                     layout.expert_parallel));
            TrainingRun run = six_steps(dtype, overrides);
            bool elsewhere = false;
            run.after = [&](RankRuntime& runtime) {
                if (runtime.mesh->world().rank() != 0) return;
                elsewhere = runtime.mesh->placement(1) != contiguous_placement(runtime.mesh->total_experts());
            };
            const TrainingOutcome outcome = train_on(run, layout);
            expect_same_bits(outcome, exact ? one : train_on(staying, layout));
            const bool choice = layout.expert_parallel > 1 && layout.expert_parallel < run.spec.experts;
            EXPECT_EQ(elsewhere, choice || placed.size() == 1);
        }
    }
};

const std::vector<Layout> kLayouts{{1, 1}, {2, 2}, {4, 2}, {4, 4}, {8, 4}, {8, 8}};

TEST_F(PlacementInvariance, MovingExpertsChangesNoBit) {
    for (const DType dtype : {DType::f32, DType::bf16}) compare(dtype, {}, kMoving, kLayouts);
}

TEST_F(PlacementInvariance, NorDoesItElsewhere) {
    compare(DType::f64, {"parallel.zero=0"}, kMoving, {{4, 2}, {4, 4}});
    compare(DType::f32, {"train.recompute=layer", "model.moe.activation=prelu", "parallel.zero=0"}, kMoving,
            {{4, 2}, {8, 8}});
    compare(DType::bf16, {"train.recompute=layer", "parallel.chunks=3"}, kMoving, {{4, 2}});
    compare(DType::f32, {"model.moe.capacity={factor: 0.8}", "model.moe.router=sigmoid_bias"}, kMoving,
            {{4, 4}});
}

TEST_F(PlacementInvariance, APermutationChangesNoBit) {
    compare(DType::f32, {}, {"parallel.placement={kind: permuted, seed: 3}"},
            {{1, 1}, {2, 2}, {4, 2}, {8, 8}});
}

TEST_F(PlacementInvariance, EveryExchangeFollows) {
    for (const char* exchange : {"hierarchical", "dedup", "shared_memory"}) {
        SCOPED_TRACE(exchange);
        std::vector<std::string> overrides{fmt::format("parallel.exchange={}", exchange)};
        if (overrides[0] != "parallel.exchange=shared_memory")
            overrides.emplace_back("parallel.ranks_per_node=2");
        compare(DType::f32, overrides, kMoving, {{4, 4}});
    }
}

/// What issue 4 asks for: 64 experts, 8 choices, 4 ranks, Zipf 1.0. The load that each rank then gets is
/// within 5 % of what the hottest expert allows, and no bit of the training is another.
TEST_F(PlacementInvariance, ZipfTrafficBecomesEven) {
    const std::vector<std::string> zipf{"model.moe.experts=64",     "model.moe.top_k=8",
                                        "model.moe.hidden=16",      "model.moe.router=uniform",
                                        "train.batch_sequences=16", "model.moe.router.traffic=zipf:1.0",
                                        "task.data.seq_len=64",     "parallel.receive_budget=2"};
    compare(DType::f32, zipf, kMoving, {{8, 4}});
    std::vector<std::string> all = zipf;
    all.insert(all.end(), kMoving.begin(), kMoving.end());
    const TrainingOutcome moving = train_on(six_steps(DType::f32, all), {4, 4});
    expect_same_bits(moving, train_on(six_steps(DType::f32, zipf), {4, 4}));
    for (const std::size_t layer : {std::size_t{0}, std::size_t{1}}) {
        const auto first = moving.steps[5].expert_counts.begin() + static_cast<std::ptrdiff_t>(64 * layer);
        std::vector<i64> counts(first, first + 64);
        std::ranges::sort(counts);
        const i64 rows = std::reduce(counts.begin(), counts.end());
        const i64 allowed =
            std::max(rows / 4, counts.back() + std::reduce(counts.begin(), counts.begin() + 15));
        const double least = static_cast<double>(allowed) * 4 / static_cast<double>(rows);
        EXPECT_GT(moving.steps[0].rank_max_over_mean[layer], 1.5);
        EXPECT_LE(moving.steps[5].rank_max_over_mean[layer], 1.05 * least);
        RecordProperty(
            fmt::format("layer_{}", layer),
            fmt::format("{:.3f} -> {:.3f}, least {:.3f}", moving.steps[0].rank_max_over_mean[layer],
                        moving.steps[5].rank_max_over_mean[layer], least));
    }
}

/// Names, not places, are what a checkpoint knows.
TEST_F(PlacementInvariance, CheckpointsAreTheSame) {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / fmt::format("moesaic-placement-{}", getpid());
    for (const DType dtype : {DType::f32, DType::bf16}) {
        std::filesystem::create_directories(folder);
        TrainingRun moving = six_steps(dtype, kMoving);
        moving.last_step = 5;
        moving.after = [&](RankRuntime& runtime) {
            EXPECT_NE(runtime.mesh->placement(1), contiguous_placement(8));
            (void)save_checkpoint(runtime, folder.string(), {5, 5}, moving.config);
        };
        const TrainingOutcome saved = train_on(moving, {4, 2});
        const TrainingOutcome straight = train_on(six_steps(dtype, {}), {4, 4});
        for (const auto& [layout, overrides] :
             {std::pair{Layout{2, 2}, std::vector<std::string>{}}, {Layout{4, 4}, kMoving}}) {
            TrainingRun resumed = six_steps(dtype, overrides);
            resumed.first_step = 6;
            resumed.before = [&](RankRuntime& runtime) {
                (void)load_checkpoint(runtime,
                                      checkpoints_folder(folder.string()) + "/" + step_folder_name(5), true);
            };
            const TrainingOutcome outcome = train_on(resumed, layout);
            EXPECT_TRUE(outcome.weights == straight.weights);
            EXPECT_TRUE(outcome.moments == straight.moments);
            EXPECT_TRUE(same_bits(outcome.steps[0], straight.steps[5]));
        }
        std::filesystem::remove_all(folder);
    }
}

}  // namespace
}  // namespace moesaic
