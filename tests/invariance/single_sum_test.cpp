// Steps of one micro-batch: a rank alone adds gradients in place (ParameterStore::sum_once), and what it
// computes is what ranks compute that sum in f64, of which the others have nothing to add.
#include "launch/checkpointer.h"
#include "launch/memory_estimate.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/support/uneven_training.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using Overrides = std::vector<std::string>;

struct SumMemory {
    bool once = false;
    i64 parameters = 0, sums = 0, gradients = 0;  ///< sums and gradients in bytes
};

/// Of a rank as it is made, whose gradients and sums are all of its memory of these uses for good.
SumMemory memory_of(const RunSetup& run, int world = 1) {
    SumMemory memory;
    std::mutex mutex;
    run_ranks(
        world,
        [&](Communicator& ranks) {
            RankRuntime runtime(run.config, run.spec, ranks, {});
            const std::lock_guard lock(mutex);
            const MemoryByUse& by_use = runtime.backend->pool().peak_by_use();
            memory = {
                runtime.store.sums_once(),
                runtime.store.elements(Placement::replicated) + runtime.store.elements(Placement::expert),
                by_use[static_cast<std::size_t>(MemoryUse::gradient_sums)],
                by_use[static_cast<std::size_t>(MemoryUse::gradients)]};
        },
        120);
    return memory;
}

RunSetup run_of(i64 sequences, i64 micro_sequences, Overrides overrides = {}) {
    overrides.push_back(fmt::format("train.batch_sequences={}", sequences));
    overrides.push_back(fmt::format("train.micro_sequences={}", micro_sequences));
    overrides.push_back("run.device=cpu");
    return tiny_run(overrides);
}

TEST(SingleSumTraining, IsOfStepsOfOneMicroBatchOnOneRank) {
    EXPECT_TRUE(memory_of(run_of(4, 4)).once);
    EXPECT_TRUE(memory_of(run_of(3, 4)).once);
    EXPECT_TRUE(memory_of(run_of(4, 4, {"parallel.receive_budget=0.1", "train.recompute=layer"})).once);
    EXPECT_TRUE(memory_of(run_of(4, 4, {"parallel.chunks=2"})).once);
    EXPECT_FALSE(memory_of(run_of(4, 2)).once);
    EXPECT_FALSE(memory_of(run_of(5, 4)).once);
    EXPECT_FALSE(memory_of(run_of(4, 4), 2).once);
    EXPECT_FALSE(memory_of(run_of(4, 4, {"train.determinism=elastic"})).once);
    EXPECT_FALSE(memory_of(run_of(4, 4, {"model.moe.activation=prelu"})).once) << "its slopes' sums are f64";
}

/// The dry run says the same to the byte, however many micro-batches it leaves out.
TEST(SingleSumTraining, TakesEightBytesAParameterLess) {
    for (const char* precision : {"train.precision=fp32", "train.precision=bf16", "train.precision=fp64"}) {
        for (const i64 sequences : {1, 4, 5, 8, 64}) {
            SCOPED_TRACE(fmt::format("{} {}", precision, sequences));
            const RunSetup run = run_of(sequences, 4, {precision});
            const SumMemory memory = memory_of(run);
            EXPECT_EQ(memory.once, sequences <= 4);
            if (memory.once) {
                EXPECT_EQ(memory.sums, 0);
            } else {
                EXPECT_GE(memory.sums, 8 * memory.parameters);
            }
            const MemoryEstimate estimate = estimate_memory(run, 1, 1);
            EXPECT_EQ(estimate.by_use[static_cast<std::size_t>(MemoryUse::gradient_sums)], memory.sums);
            EXPECT_EQ(estimate.by_use[static_cast<std::size_t>(MemoryUse::gradients)], memory.gradients);
        }
    }
}

class SingleSumTrainings : public UnevenTraining {
  protected:
    /// Four sequences, of which the others of two and four ranks have none.
    [[nodiscard]] TrainingRun run_of_one(DType dtype, Overrides overrides = {}) {
        overrides.insert(overrides.end(),
                         {"train.batch_sequences=4", "train.micro_sequences=4", "run.device=cpu"});
        TrainingRun run = training_run(dtype, overrides);
        run.last_step = 4;
        return run;
    }
    void compare(DType dtype, const Overrides& overrides = {}) {
        const TrainingRun run = run_of_one(dtype, overrides);
        const TrainingOutcome alone = train_on(run, {1, 1});
        for (const Layout layout : {Layout{2, 1}, Layout{4, 2}}) {
            SCOPED_TRACE(fmt::format("{} ranks in {}", layout.world, name_of(dtype)));
            expect_same_bits(train_on(run, layout), alone);
        }
    }
};

TEST_F(SingleSumTrainings, AreThoseThatSumInF64) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) compare(dtype);
}

TEST_F(SingleSumTrainings, OfOtherModelsToo) {
    compare(DType::f32, {"model.tie_embeddings=true", "model.moe.every=2", "model.dense_hidden=40"});
    compare(DType::bf16,
            {"model.moe.shared_experts=1", "model.moe.shared_gate=true", "train.recompute=layer"});
}

TEST_F(SingleSumTrainings, GoOnFromACheckpoint) {
    const ScratchFolder scratch;
    const TrainingRun run = run_of_one(DType::bf16);
    TrainingRun first = run, second = run;
    first.last_step = 2;
    first.after = [&](RankRuntime& runtime) {
        (void)save_checkpoint(runtime, scratch / "run", {2, 8 * run.spec.seq_len}, run.config);
    };
    (void)train_on(first, {1, 1});
    second.first_step = 3;
    second.before = [&](RankRuntime& runtime) {
        (void)load_checkpoint(runtime, checkpoints_folder(scratch / "run") + "/" + step_folder_name(2), true);
    };
    const TrainingOutcome resumed = train_on(second, {1, 1}), whole = train_on(run, {2, 2});
    EXPECT_TRUE(resumed.weights == whole.weights);
    EXPECT_TRUE(resumed.moments == whole.moments);
}

}  // namespace
}  // namespace moesaic
