// Checkpoints that are written while training goes on.
#include "launch/checkpointer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <mutex>

#include "comm/thread_communicator.h"
#include "launch/faults/fault_injector.h"
#include "launch/training_step.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/support/tiny_run.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

struct RankAtWork {
    RankRuntime& runtime;
    TrainingStep& training;
    Checkpointer& checkpointer;
    Communicator& world;
    /// One step of training, whose notes the checkpointer hears.
    std::optional<CheckpointOutcome> step(i64 step) const {
        RankNote note;
        checkpointer.tell(note);
        const StepResult result = training.forward_backward(step, note);
        training.update(step, result.grad_norm);
        return checkpointer.hear(result.notes);
    }
};

void on_ranks(const RunSetup& run, int ranks, const std::string& folder, const std::string& faults,
              const std::function<void(const RankAtWork&)>& body) {
    run_ranks(
        ranks,
        [&](Communicator& world) {
            RankRuntime runtime(run.config, run.spec, world, {});
            TrainingStep training(runtime, run.config, *run.dataset);
            std::optional<FaultInjector> injector;
            if (!faults.empty()) injector.emplace(parse_faults(faults), world.rank());
            Checkpointer checkpointer(runtime, checkpoint_settings(folder, run.config, ""),
                                      injector ? &*injector : nullptr);
            body({runtime, training, checkpointer, world});
            runtime.compute->synchronize();
            runtime.exchange->synchronize();
        },
        120);
}

RunSetup uneven_run(std::vector<std::string> overrides = {}) {
    overrides.insert(overrides.end(), {"train.batch_sequences=3", "train.steps=40"});
    return tiny_run(overrides);
}

std::string bytes_of(const std::string& checkpoint) {
    std::string all;
    std::vector<std::string> names;
    for (const ShardRecord& shard : read_manifest(checkpoint).shards) names.push_back(shard.file);
    for (const std::string& name : names) all += read_text(checkpoint + "/" + name);
    return all;
}

TEST(Checkpointer, HoldsTheModelAsItWasWhenItBegan) {
    for (const int ranks : {1, 2, 3, 4, 8}) {
        SCOPED_TRACE(ranks);
        const ScratchFolder scratch;
        const RunSetup run = uneven_run();
        std::string while_training, at_once;
        on_ranks(run, ranks, scratch / "beside", "slow-disk:seconds=0.05", [&](const RankAtWork& rank) {
            for (const i64 step : {1, 2}) (void)rank.step(step);
            Config without_copies = run.config;
            without_copies.train.async_checkpoints = false;
            (void)save_checkpoint(rank.runtime, scratch / "at_once", {2, 2}, without_copies);
            ASSERT_FALSE(rank.checkpointer.begin({2, 2}));
            EXPECT_TRUE(rank.checkpointer.under_way());
            std::optional<CheckpointOutcome> outcome;
            for (i64 step = 3; step <= 40 && !outcome; ++step) outcome = rank.step(step);
            if (!outcome) outcome = rank.checkpointer.finish();
            ASSERT_TRUE(outcome);
            EXPECT_EQ(outcome->failed_rank, -1);
            EXPECT_EQ(outcome->record.step, 2);
            EXPECT_FALSE(rank.checkpointer.under_way());
            if (rank.world.rank() == 0) {
                EXPECT_GE(outcome->record.seconds, 0.05);
            }
        });
        const auto latest = find_latest(scratch / "beside");
        ASSERT_TRUE(latest);
        EXPECT_EQ(bytes_of(*latest), bytes_of(*find_latest(scratch / "at_once")));
    }
}

TEST(Checkpointer, IsNotCompleteBeforeAllRanksAre) {
    const ScratchFolder scratch;
    const RunSetup run = uneven_run();
    on_ranks(run, 3, scratch / "run", "", [&](const RankAtWork& rank) {
        (void)rank.step(1);
        ASSERT_FALSE(rank.checkpointer.begin({1, 1}));
        std::vector<RankNote> notes(3);
        for (RankNote& note : notes) note.writer_state = static_cast<double>(WriterState::done);
        notes[2].writer_state = static_cast<double>(WriterState::busy);
        notes[1].writer_state = static_cast<double>(WriterState::failed);
        EXPECT_FALSE(rank.checkpointer.hear(notes)) << "rank 2 still writes into the folder";
        EXPECT_TRUE(rank.checkpointer.under_way());
        EXPECT_FALSE(find_latest(scratch / "run"));
        rank.world.barrier({"test"});
        EXPECT_TRUE(rank.checkpointer.finish());
        EXPECT_TRUE(find_latest(scratch / "run"));
    });
}

TEST(Checkpointer, AFullDiskLeavesNothingAndTheNextOneMaySucceed) {
    for (const std::string fault : {"full-disk:rank=1,step=2", "full-disk:rank=0,step=2"}) {
        SCOPED_TRACE(fault);
        const ScratchFolder scratch;
        const RunSetup run = uneven_run();
        const int broken = fault.find("rank=1") != std::string::npos ? 1 : 0;
        on_ranks(run, 3, scratch / "run", fault, [&](const RankAtWork& rank) {
            (void)rank.step(1);
            ASSERT_FALSE(rank.checkpointer.begin({1, 1}));
            EXPECT_EQ(rank.checkpointer.finish()->failed_rank, -1);
            (void)rank.step(2);
            ASSERT_FALSE(rank.checkpointer.begin({2, 2}));
            const auto outcome = rank.checkpointer.finish();
            ASSERT_TRUE(outcome);
            EXPECT_EQ(outcome->failed_rank, broken);
            if (rank.world.rank() == broken) {
                EXPECT_THAT(outcome->why, HasSubstr("No space left on device"));
                EXPECT_THROW(rank.checkpointer.throw_failure(*outcome), Error);
            } else {
                EXPECT_THROW(rank.checkpointer.throw_failure(*outcome), AbortedError);
            }
            rank.world.barrier({"test"});
            EXPECT_EQ(list_checkpoints(scratch / "run").size(), 1u) << "no rest fills the disk";
            rank.world.barrier({"test"});
            (void)rank.step(3);
            ASSERT_FALSE(rank.checkpointer.begin({3, 3}));
            EXPECT_EQ(rank.checkpointer.finish()->failed_rank, -1);
        });
        EXPECT_THAT(*find_latest(scratch / "run"), HasSubstr("step-00000003"));
    }
}

TEST(Checkpointer, DamagedCheckpointsAreLeftForOlderOnes) {
    const ScratchFolder scratch;
    const RunSetup run = uneven_run();
    on_ranks(run, 2, scratch / "run", "truncate-checkpoint:step=3,shard=1,bitflip-checkpoint:step=2",
             [&](const RankAtWork& rank) {
                 for (const i64 step : {1, 2, 3}) {
                     ASSERT_FALSE(rank.checkpointer.begin({step, step}));
                     ASSERT_TRUE(rank.checkpointer.finish());
                 }
                 EXPECT_THAT(newest_sound_checkpoint(rank.world, scratch / "run"),
                             HasSubstr("step-00000001"));
                 EXPECT_EQ(newest_sound_checkpoint(rank.world, scratch / "none"), "");
             });
    fs::remove_all(scratch / "run/checkpoints/step-00000001");
    run_ranks(2, [&](Communicator& world) {
        if (world.rank() == 0) {
            EXPECT_THROW((void)newest_sound_checkpoint(world, scratch / "run"), Error);
        } else {
            EXPECT_THROW((void)newest_sound_checkpoint(world, scratch / "run"), AbortedError);
        }
    });
}

}  // namespace
}  // namespace moesaic
