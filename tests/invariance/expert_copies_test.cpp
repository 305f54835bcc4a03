// Copies of hot experts: the numbers of a training without them but for rounding, and ranks that are evener
// than the hottest expert allows.
#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <tuple>

#include "launch/checkpointer.h"
#include "runtime/base/worse.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/support/uneven_training.h"

namespace moesaic {
namespace {

using Overrides = std::vector<std::string>;

Overrides with(Overrides overrides, const Overrides& more) {
    overrides.insert(overrides.end(), more.begin(), more.end());
    return overrides;
}

/// Decided anew after every step, by that step.
Overrides copied(int places) {
    return {"parallel.placement=load_aware", "parallel.placement.every=1", "parallel.placement.min_gain=0",
            fmt::format("parallel.placement.copies={}", places)};
}

double worst_difference(const LogicalTensors& got, const LogicalTensors& want) {
    double worst = got.size() == want.size() ? 0 : std::numeric_limits<double>::infinity();
    for (const auto& [name, values] : want) worst = worse(worst, relative_l2(got.at(name), values));
    return worst;
}

class ExpertCopiesTraining : public UnevenTraining {
  protected:
    [[nodiscard]] TrainingOutcome six_steps(DType dtype, const Overrides& overrides, Layout layout,
                                            i64* copies = nullptr) {
        TrainingRun run = training_run(dtype, overrides);
        run.last_step = 6;
        run.after = [&](RankRuntime& runtime) {
            if (copies == nullptr || runtime.mesh->world().rank() != 0) return;
            for (const int layer : {0, 1})
                *copies += std::ranges::count_if(runtime.mesh->copies(layer).places,
                                                 [](const auto& place) { return place.expert >= 0; });
        };
        return train_on(run, layout);
    }
    void expect_near(DType dtype, const Overrides& overrides, int places, Layout layout, double tolerance) {
        SCOPED_TRACE(fmt::format("{}, {} ranks, expert-parallel {}, {}", name_of(dtype), layout.world,
                                 layout.expert_parallel, fmt::join(overrides, " ")));
        i64 copies = 0;
        const TrainingOutcome got = six_steps(dtype, with(overrides, copied(places)), layout, &copies);
        const TrainingOutcome want = six_steps(dtype, overrides, layout);
        EXPECT_GT(copies, 0);
        EXPECT_LE(worst_difference(got.weights, want.weights), tolerance);
        for (std::size_t step = 0; step < want.steps.size(); ++step) {
            EXPECT_LE(std::abs(got.steps[step].loss / want.steps[step].loss - 1), tolerance) << step;
            EXPECT_LE(std::abs(got.steps[step].grad_norm / want.steps[step].grad_norm - 1), 10 * tolerance);
        }
    }
};

TEST_F(ExpertCopiesTraining, ChangesNoNumberButForRounding) {
    for (const Layout layout : {Layout{2, 2}, {4, 2}, {4, 4}, {8, 4}, {8, 8}}) {
        expect_near(DType::f64, {}, 1, layout, 1e-9);
        expect_near(DType::f32, {"optimizer.eps=1e-3"}, 2, layout, 1e-6);
    }
}

TEST_F(ExpertCopiesTraining, EveryOptionFollows) {
    const std::vector<Overrides> cases{{"parallel.zero=0", "model.moe.activation=prelu"},
                                       {"train.recompute=layer", "parallel.chunks=3"},
                                       {"parallel.exchange=hierarchical", "parallel.ranks_per_node=2"},
                                       {"parallel.exchange=dedup", "parallel.ranks_per_node=2"},
                                       {"parallel.exchange=shared_memory"},
                                       {"model.moe.capacity={factor: 0.8}"}};
    for (const Overrides& overrides : cases) expect_near(DType::f64, overrides, 1, {4, 4}, 1e-9);
    expect_near(DType::f64, {"parallel.expert_tensor=2"}, 1, {8, 4}, 1e-9);
}

/// 64 experts, 8 choices, 4 ranks and Zipf 1.0, where whole experts can be packed evenly already; and 8
/// experts, 1 choice, 8 ranks, where the hottest expert alone is 2.9 times the mean.
TEST_F(ExpertCopiesTraining, EvenerThanTheHottestExpertAllows) {
    const Overrides zipf{"model.moe.router=uniform", "model.moe.router.traffic=zipf:1.0",
                         "train.batch_sequences=16", "task.data.seq_len=64", "model.moe.hidden=16"};
    for (const auto& [experts, choices, ranks] : {std::tuple{64, 8, 4}, {8, 1, 8}}) {
        const Overrides run = with(
            zipf, {fmt::format("model.moe.experts={}", experts), fmt::format("model.moe.top_k={}", choices)});
        const Layout layout{ranks, ranks};
        const TrainingOutcome moved = six_steps(DType::f32, with(run, copied(0)), layout);
        const TrainingOutcome copies = six_steps(DType::f32, with(run, copied(2)), layout);
        for (const std::size_t layer : {std::size_t{0}, std::size_t{1}}) {
            const auto first =
                moved.steps[5].expert_counts.begin() + static_cast<std::ptrdiff_t>(layer) * experts;
            const std::vector<i64> counts(first, first + experts);
            const double mean = static_cast<double>(std::reduce(counts.begin(), counts.end())) / ranks;
            const double hottest = static_cast<double>(std::ranges::max(counts)) / mean;
            const double with_moves = moved.steps[5].rank_max_over_mean[layer];
            const double with_copies = copies.steps[5].rank_max_over_mean[layer];
            EXPECT_LE(with_copies, std::max(1.08, with_moves));
            if (hottest > 1.1) {
                EXPECT_LT(with_copies, hottest);
            }
            fmt::print(
                "{} experts, {} choices, {} ranks, layer {}: fullest rank {:.3f} times the mean at first, "
                "{:.3f} moved, {:.3f} with two copies a rank; the hottest expert alone {:.3f}\n",
                experts, choices, ranks, layer, moved.steps[0].rank_max_over_mean[layer], with_moves,
                with_copies, hottest);
        }
    }
}

/// Everything that travels for copies goes by one all-to-all a bucket and kind, and the ledger has its bytes:
/// copies are decided after step 5, when experts move too, values go out after steps 5 and 6, gradients come
/// home in step 6.
TEST_F(ExpertCopiesTraining, TravelTogetherAndAreCounted) {
    for (const Layout layout : {Layout{2, 2}, {4, 2}, {4, 4}}) {
        SCOPED_TRACE(fmt::format("{} ranks, expert-parallel {}", layout.world, layout.expert_parallel));
        TrainingRun run = training_run(DType::f32, with(copied(2), {"parallel.placement.every=5"}));
        run.last_step = 6;
        run.after = [](RankRuntime& runtime) {
            const Mesh& mesh = *runtime.mesh;
            const auto expert_elements = [&](int layer) {  // of all its tensors
                i64 elements = 0;
                for (const Parameter& one : std::as_const(runtime.store).copies_or_null()->parameters())
                    elements += one.layer == layer ? one.shape.elements() : 0;
                return elements / mesh.copy_places();
            };
            i64 out = 0, home = 0;
            std::size_t copies = 0, buckets = 0;
            for (const int layer : {0, 1}) {
                for (i64 place = 0; place < std::ssize(mesh.copies(layer).places); ++place) {
                    const i32 expert = mesh.copies(layer).places[static_cast<std::size_t>(place)].expert;
                    if (expert < 0) continue;
                    ++copies;
                    if (mesh.expert_owner(layer, expert) == mesh.expert_rank()) out += expert_elements(layer);
                    if (place / mesh.copy_places() == mesh.expert_rank()) home += expert_elements(layer);
                }
            }
            for (const GradientBucket& bucket : runtime.gradient_sync->buckets())
                buckets += bucket.placement == Placement::expert ? 1 : 0;
            const TrafficLedger& ledger = mesh.world().ledger();
            EXPECT_EQ(ledger.of(kCopiedExpertsPhase).to_others(), 2 * 4 * out);
            EXPECT_EQ(ledger.of(kCopiedGradientsPhase).to_others(), 8 * home);
            std::size_t exchanges = 0, moves = 0, pairwise = 0;
            for (const FlightRecord& record : mesh.world().flights().log().records) {
                exchanges +=
                    record.operation == kCopiedExpertsPhase || record.operation == kCopiedGradientsPhase;
                moves += record.verb == "all_to_all_rows" && record.operation == kMovedExpertsPhase;
                pairwise += record.verb == "send" || record.verb == "recv";
            }
            EXPECT_GT(copies, 0U);
            EXPECT_GT(exchanges, 0U);
            EXPECT_LE(exchanges, 3 * buckets) << "three times all copies have travelled";
            EXPECT_EQ(moves, mesh.local_experts() > 1 ? 3U : 0U) << "values and two moments, of all buckets";
            if (mesh.expert_parallel() == 2) {
                EXPECT_GT(buckets, 1U) << "more than one bucket is what this is about";
            }
            EXPECT_EQ(pairwise, 0U);
        };
        (void)train_on(run, layout);
    }
}

/// A checkpoint does not know of copies.
TEST_F(ExpertCopiesTraining, CheckpointsAreWithoutThem) {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / fmt::format("moesaic-copies-{}", getpid());
    std::filesystem::create_directories(folder);
    TrainingRun saving = training_run(DType::f32, copied(2));
    saving.last_step = 4;
    saving.after = [&](RankRuntime& runtime) {
        (void)save_checkpoint(runtime, folder.string(), {4, 4}, saving.config);
    };
    const TrainingOutcome saved = train_on(saving, {4, 4});
    TrainingRun loading = training_run(DType::f32);
    loading.last_step = 0;
    loading.before = [&](RankRuntime& runtime) {
        (void)load_checkpoint(runtime, checkpoints_folder(folder.string()) + "/" + step_folder_name(4), true);
    };
    const TrainingOutcome loaded = train_on(loading, {2, 1});
    EXPECT_TRUE(loaded.weights == saved.weights);
    EXPECT_TRUE(loaded.moments == saved.moments);
    std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace moesaic
