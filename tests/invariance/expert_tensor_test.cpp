// Experts whose width several ranks share: the numbers of whole ones but for rounding, and the same bits on
// every layout of as many slices.
#include <unistd.h>

#include <filesystem>

#include "launch/checkpointer.h"
#include "launch/model_measures.h"
#include "runtime/base/worse.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/support/uneven_training.h"

namespace moesaic {
namespace {

using Overrides = std::vector<std::string>;

std::string sliced(int slices) {
    return fmt::format("parallel.expert_tensor={}", slices);
}

double norm(const std::vector<double>& values) {
    double squares = 0;
    for (const double value : values) squares += value * value;
    return std::sqrt(squares);
}

/// The worst tensor, of those that are more than rounding: one token has nothing to attend to.
double worst_difference(const LogicalTensors& got, const LogicalTensors& want) {
    double largest = 0, worst = got.size() == want.size() ? 0 : std::numeric_limits<double>::infinity();
    for (const auto& [name, values] : want) largest = std::max(largest, norm(values));
    for (const auto& [name, values] : want) {
        if (!(norm(values) <= 1e-9 * largest)) worst = worse(worst, relative_l2(got.at(name), values));
    }
    return worst;
}

class ExpertTensor : public UnevenTraining {
  protected:
    [[nodiscard]] TrainingOutcome train_sliced(DType dtype, Overrides overrides, int slices, Layout layout,
                                               i64 last_step = 4) {
        overrides.push_back(sliced(slices));
        TrainingRun run = training_run(dtype, overrides);
        run.last_step = last_step;
        return train_on(run, layout);
    }
    void expect_layouts_agree(DType dtype, const Overrides& overrides, int slices,
                              const std::vector<Layout>& layouts) {
        const TrainingOutcome smallest = train_sliced(dtype, overrides, slices, {slices, 1});
        for (const Layout layout : layouts) {
            SCOPED_TRACE(fmt::format("{}, {} slices, {} ranks, expert-parallel {}, {}", name_of(dtype),
                                     slices, layout.world, layout.expert_parallel,
                                     fmt::join(overrides, " ")));
            expect_same_bits(train_sliced(dtype, overrides, slices, layout), smallest);
        }
    }
    /// One step's gradients and a few steps' losses against whole experts on one rank.
    void expect_near_whole(DType dtype, const Overrides& overrides, int slices, Layout layout,
                           double tolerance) {
        SCOPED_TRACE(fmt::format("{}, {} slices, {} ranks, expert-parallel {}, {}", name_of(dtype), slices,
                                 layout.world, layout.expert_parallel, fmt::join(overrides, " ")));
        const TrainingOutcome got = train_sliced(dtype, overrides, slices, layout);
        const TrainingOutcome want = train_sliced(dtype, overrides, 1, {1, 1});
        EXPECT_LE(worst_difference(got.gradients, want.gradients), tolerance);
        EXPECT_LE(std::abs(got.steps[0].loss / want.steps[0].loss - 1), tolerance);
        EXPECT_LE(std::abs(got.steps[0].grad_norm / want.steps[0].grad_norm - 1), tolerance);
        EXPECT_EQ(got.steps[0].expert_counts, want.steps[0].expert_counts);
        EXPECT_EQ(got.steps[0].dropped, want.steps[0].dropped);
        for (std::size_t step = 0; step < want.steps.size(); ++step)
            EXPECT_LE(std::abs(got.steps[step].loss / want.steps[step].loss - 1), 10 * tolerance) << step;
    }
};

TEST_F(ExpertTensor, SameBitsOnEveryLayout) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        expect_layouts_agree(dtype, {}, 2, {{4, 1}, {4, 2}, {8, 2}, {8, 4}});
        expect_layouts_agree(dtype, {}, 4, {{8, 1}, {8, 2}});
    }
    expect_layouts_agree(DType::f32, {"model.moe.hidden=48"}, 3, {{6, 2}});
}

TEST_F(ExpertTensor, WholeExpertsButForRounding) {
    for (const int slices : {2, 4, 8}) {
        expect_near_whole(DType::f32, {}, slices, {8, 8 / slices}, 1e-6);
        expect_near_whole(DType::f64, {}, slices, {slices, 1}, 1e-13);
    }
    expect_near_whole(DType::f64, {"model.moe.hidden=48"}, 3, {3, 1}, 1e-13);
}

/// What the parts of a layer and of a step make of slices.
TEST_F(ExpertTensor, EveryOptionFollows) {
    const std::vector<Overrides> cases{
        {"model.moe.activation=prelu", "parallel.zero=0"},
        {"train.recompute=layer", "parallel.chunks=3", "model.moe.activation=gelu"},
        {"model.moe.capacity={factor: 0.8, renormalize: true}", "model.moe.router=sigmoid_bias"},
        {"model.moe.capacity={factor: 1.0, per: micro, pad: true}", "parallel.receive_budget=4"},
        {"model.moe.shared_experts=1", "model.moe.balance.scope=global"},
        {"parallel.exchange=hierarchical", "parallel.ranks_per_node=2"},
        {"parallel.exchange=dedup", "parallel.ranks_per_node=1"},
        {"parallel.exchange=shared_memory", "train.batch_sequences=3"},
        {"parallel.placement=load_aware", "parallel.placement.every=1", "parallel.placement.min_gain=0"},
        {"parallel.placement={kind: permuted, seed: 3}", "model.moe.activation=prelu"}};
    for (const Overrides& overrides : cases) {
        expect_layouts_agree(DType::f32, overrides, 2, {{4, 2}});
        expect_near_whole(DType::f64, overrides, 2, {4, 2}, 1e-12);
    }
}

/// One token: all ranks but one are empty, and so are all experts but two.
TEST_F(ExpertTensor, OneToken) {
    const Overrides one{"train.batch_sequences=1", "train.micro_sequences=1", "task.data.seq_len=1"};
    expect_layouts_agree(DType::f32, one, 2, {{4, 2}, {8, 4}});
    expect_near_whole(DType::f64, one, 2, {8, 2}, 1e-12);
}

TEST_F(ExpertTensor, SlicesBeginAsPartsOfTheWhole) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        const TrainingOutcome whole = train_sliced(dtype, {}, 1, {1, 1}, 0);
        const TrainingOutcome slices = train_sliced(dtype, {}, 4, {4, 1}, 0);
        EXPECT_TRUE(slices.weights == whole.weights);
        EXPECT_TRUE(slices.moments == whole.moments);  // with masters
    }
}

/// A checkpoint holds whole experts: what was saved in two slices goes on whole or in four, from the same
/// bits.
TEST_F(ExpertTensor, CheckpointsHoldWholeExperts) {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / fmt::format("moesaic-slices-{}", getpid());
    for (const DType dtype : {DType::f32, DType::bf16}) {
        std::filesystem::create_directories(folder);
        TrainingRun saving = training_run(dtype, {sliced(2)});
        saving.last_step = 3;
        saving.after = [&](RankRuntime& runtime) {
            (void)save_checkpoint(runtime, folder.string(), {3, 3}, saving.config);
        };
        const TrainingOutcome saved = train_on(saving, {8, 2});
        for (const auto& [slices, layout] :
             {std::pair{1, Layout{2, 2}}, {2, Layout{2, 1}}, {4, Layout{8, 2}}}) {
            SCOPED_TRACE(slices);
            TrainingRun loading = training_run(dtype, {sliced(slices)});
            loading.last_step = 0;  // weights and moments as they were read
            loading.before = [&](RankRuntime& runtime) {
                (void)load_checkpoint(runtime,
                                      checkpoints_folder(folder.string()) + "/" + step_folder_name(3), true);
            };
            const TrainingOutcome loaded = train_on(loading, layout);
            EXPECT_TRUE(loaded.weights == saved.weights);
            EXPECT_TRUE(loaded.moments == saved.moments);
        }
        std::filesystem::remove_all(folder);
    }
}

/// Bounds speak of whole experts.
TEST_F(ExpertTensor, NormsAreThoseOfWholeExperts) {
    const auto factors = [&](int slices, Layout layout) {
        std::vector<double> found;
        TrainingRun run = training_run(DType::f32, {sliced(slices)});
        run.last_step = 0;
        run.after = [&](RankRuntime& runtime) {
            const auto layers = measure_experts(runtime);
            if (runtime.mesh->world().rank() != 0) return;
            for (const LayerNormsOfExperts& layer : layers) {
                for (const ExpertNorms& expert : layer.experts) {
                    found.push_back(expert.factor);
                    for (const MatrixNorms& matrix : expert.matrices) found.push_back(matrix.spectral);
                }
            }
        };
        (void)train_on(run, layout);
        return found;
    };
    const std::vector<double> whole = factors(1, {1, 1});
    EXPECT_GT(whole.size(), 8u);
    EXPECT_EQ(factors(2, {4, 2}), whole);
    EXPECT_EQ(factors(4, {8, 1}), whole);
}

}  // namespace
}  // namespace moesaic
