// Resuming: bit for bit on the same layout, within rounding on another, and what becomes of the metrics.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

const Words kEveryStep{"train.log_every=1"};

std::map<i64, double> after_step_10(std::map<i64, double> by_step) {
    std::erase_if(by_step, [](const auto& one) { return one.first <= 10; });
    return by_step;
}

TEST(Resume, GoesOnBitForBitInAnotherFolder) {
    for (const Ranks& ranks : {kAlone, threads(4), mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const auto straight = train_tiny(scratch / "straight", ranks, kEveryStep);
        const auto resumed = train_tiny(scratch / "other", ranks, kEveryStep,
                                        {"--resume", checkpoint_of(scratch / "straight", 10)});
        EXPECT_EQ(losses(resumed), after_step_10(losses(straight)));
        const StoredTensors expected = read_tensors(checkpoint_of(scratch / "straight", 20));
        expect_same_bytes(read_tensors(checkpoint_of(scratch / "other", 20)), expected);
        EXPECT_EQ(std::count_if(expected.begin(), expected.end(),
                                [](const auto& one) { return one.first.ends_with("_moment"); }),
                  static_cast<std::ptrdiff_t>(expected.size() / 3 * 2))
            << "a weight has two moments";
        EXPECT_EQ(events(resumed, "eval").back().at("heldout_loss"),
                  events(straight, "eval").back().at("heldout_loss"));
        EXPECT_EQ(events(resumed, "step").back().at("tokens"), events(straight, "step").back().at("tokens"));
    }
}

TEST(Resume, AutoRewritesWhatCameAfterTheCheckpointOnce) {
    for (const Ranks& ranks : {kAlone, mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const std::string run = scratch / "out/tiny";
        const auto straight = train_tiny(scratch / "out", ranks, kEveryStep);
        const StoredTensors expected = read_tensors(checkpoint_of(scratch / "out", 20));
        const std::size_t csv_lines = lines_of(read_text(run + "/metrics.csv")).size();
        std::filesystem::remove_all(checkpoint_of(scratch / "out", 20));

        const auto resumed = train_tiny(scratch / "out", ranks, kEveryStep, {"--resume", "auto"});
        EXPECT_EQ(losses(resumed), losses(straight));
        expect_same_bytes(read_tensors(checkpoint_of(scratch / "out", 20)), expected);
        EXPECT_EQ(events(resumed, "end").size(), 1u);
        EXPECT_EQ(events(resumed, "eval").size(), 3u);
        EXPECT_EQ(events(resumed, "checkpoint").size(), 3u);
        EXPECT_EQ(events(resumed, "run").size(), 2u) << "who resumed it is on record";
        const Words csv = lines_of(read_text(run + "/metrics.csv"));
        EXPECT_EQ(csv.size(), csv_lines);
        EXPECT_EQ(lines_of(read_text(run + "/checkpoints/latest")), Words{"step-00000020"});
        EXPECT_FALSE(std::filesystem::exists(run + ".old-1"));
    }
}

TEST(Resume, AutoWithoutARunStartsOne) {
    const ScratchFolder scratch;
    const auto records = train_tiny(scratch / "out", kAlone, {"train.steps=5"}, {"--resume", "auto"});
    EXPECT_TRUE(losses(records).contains(1));
}

/// A run that begins with another one's weights has them in a checkpoint of its own before its first step,
/// and goes on from there when it dies at once, even where the other one is gone.
TEST(Resume, BeginsWithACheckpointOfItsOwn) {
    for (const Ranks& ranks : {kAlone, threads(2)}) {
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const auto straight = train_tiny(scratch / "straight", ranks, kEveryStep);
        const StoredTensors expected = read_tensors(checkpoint_of(scratch / "straight", 20));
        const auto from_10 = [&](const std::string& out, const Words& more, const std::string& policy) {
            Words words{"--resume", checkpoint_of(scratch / "straight", 10)};
            words.insert(words.end(), more.begin(), more.end());
            return moesaic(tiny(scratch / out, {"train.log_every=1", "train.nonfinite=" + policy}, words),
                           ranks);
        };
        const Words nan{"--inject", "nan:layer=1,expert=3,step=12"};
        const CommandResult back = from_10("back", nan, "rollback");
        EXPECT_EQ(back.code, 0) << back.text();
        EXPECT_FALSE(std::filesystem::exists(scratch / "back/tiny.old-1"));
        EXPECT_EQ(losses(read_records(scratch / "back/tiny")), after_step_10(losses(straight)));
        expect_same_bytes(read_tensors(checkpoint_of(scratch / "back", 20)), expected);

        expect_failure(from_10("stopped", nan, "stop"), 1, {"the newest checkpoint is of step 10"});
        std::filesystem::rename(scratch / "stopped", scratch / "out");
        std::filesystem::remove_all(scratch / "straight");
        const CommandResult again = moesaic(tiny(scratch / "out", kEveryStep, {"--resume", "auto"}), ranks);
        EXPECT_EQ(again.code, 0) << again.text();
        EXPECT_EQ(occurrences(again.err, "out/tiny/checkpoints/step-00000010 at step 10"), 1) << again.text();
        EXPECT_EQ(losses(read_records(scratch / "out/tiny")), after_step_10(losses(straight)));
        expect_same_bytes(read_tensors(checkpoint_of(scratch / "out", 20)), expected);
    }
}

TEST(Resume, AKillBeforeTheFirstCheckpointLosesNoWeights) {
    const ScratchFolder scratch;
    const auto straight = train_tiny(scratch / "straight", kAlone, kEveryStep);
    const CommandResult killed = moesaic(
        tiny(scratch / "out", kEveryStep,
             {"--resume", checkpoint_of(scratch / "straight", 10), "--inject", "kill:rank=0,step=11"}));
    EXPECT_EQ(killed.code, 137) << killed.text();
    const CommandResult again = moesaic(tiny(scratch / "out", kEveryStep, {"--resume", "auto"}));
    EXPECT_EQ(again.code, 0) << again.text();
    EXPECT_EQ(occurrences(again.err, "at step 10"), 1) << again.text();
    EXPECT_EQ(losses(read_records(scratch / "out/tiny")), after_step_10(losses(straight)));
}

TEST(Resume, AnEarlierCheckpointMakesLaterOnesObsolete) {
    const ScratchFolder scratch;
    train_tiny(scratch / "out", kAlone, kEveryStep);
    CommandOptions full_disk;
    full_disk.largest_file = 100 << 10;
    const Words back_to_10{"--resume", checkpoint_of(scratch / "out", 10)};
    const CommandResult interrupted =
        moesaic(tiny(scratch / "out", {"train.log_every=1", "train.checkpoint_every=5"}, back_to_10), kAlone,
                full_disk);
    ASSERT_EQ(interrupted.code, 1) << interrupted.text();
    const auto resumed = train_tiny(scratch / "out", kAlone, kEveryStep, {"--resume", "auto"});
    EXPECT_EQ(losses(resumed).size(), 20u) << "step 20 of the abandoned course was not taken up";
}

TEST(Resume, AFinishedRunHasNothingLeftToDo) {
    const ScratchFolder scratch;
    const auto straight = train_tiny(scratch / "out", kAlone, kEveryStep);
    const auto again = train_tiny(scratch / "out", kAlone, kEveryStep, {"--resume", "auto"});
    EXPECT_EQ(losses(again), losses(straight));
}

TEST(Resume, OtherRanksGoOnWithinRounding) {
    if (!have_mpi()) GTEST_SKIP() << "built without MPI";
    const ScratchFolder scratch;
    const auto straight = train_tiny(scratch / "two", mpirun(2), kEveryStep);
    const StoredTensors expected = read_tensors(checkpoint_of(scratch / "two", 20));
    for (const Ranks& ranks : {mpirun(4), threads(8), kAlone}) {
        SCOPED_TRACE(name_of(ranks));
        const std::string out = scratch / name_of(ranks);
        const auto resumed =
            train_tiny(out, ranks, kEveryStep, {"--resume", checkpoint_of(scratch / "two", 10)});
        const auto expected_losses = after_step_10(losses(straight)), found = losses(resumed);
        ASSERT_EQ(found.size(), expected_losses.size());
        EXPECT_EQ(found.at(11), expected_losses.at(11)) << "the same weights give the same loss, bit for bit";
        for (const auto& [step, loss] : expected_losses) {
            EXPECT_NEAR(found.at(step), loss, 1e-6 * std::abs(loss)) << "step " << step;
        }
        const StoredTensors tensors = read_tensors(checkpoint_of(out, 20));
        ASSERT_EQ(tensors.size(), expected.size());
        for (const auto& [name, tensor] : expected) {
            if (name.ends_with("_moment")) continue;
            EXPECT_LT(relative_difference(tensors.at(name), tensor), 1e-6) << name;
        }
    }
}

/// Experts in two slices under mpirun and as threads, then whole ones and four slices from the same
/// checkpoint.
TEST(Resume, SlicedExpertsGoOnOtherwise) {
    const Words two{"parallel.expert_tensor=2", "train.log_every=1"};
    const ScratchFolder scratch;
    const auto straight = train_tiny(scratch / "threads", threads(4), two);
    if (have_mpi()) {
        EXPECT_EQ(losses(train_tiny(scratch / "mpi", mpirun(4), two)), losses(straight));
        expect_same_bytes(read_tensors(checkpoint_of(scratch / "mpi", 20)),
                          read_tensors(checkpoint_of(scratch / "threads", 20)));
    }
    const auto expected = after_step_10(losses(straight));
    const std::string from = checkpoint_of(scratch / "threads", 10);
    for (const auto& [ranks, slices] : {std::pair{kAlone, 1}, {threads(8), 4}}) {
        SCOPED_TRACE(slices);
        const auto resumed = train_tiny(
            scratch / std::to_string(slices), ranks,
            {"parallel.expert_tensor=" + std::to_string(slices), "train.log_every=1"}, {"--resume", from});
        for (const auto& [step, loss] : expected)
            EXPECT_NEAR(losses(resumed).at(step), loss, 1e-5 * std::abs(loss)) << "step " << step;
    }
    const CommandResult evaluated = moesaic({"eval", from});  // on one rank, as it is
    EXPECT_EQ(evaluated.code, 0) << evaluated.text();
}

TEST(Resume, ShardedOptimizerStateChangesNoBit) {
    for (const Ranks& ranks : {threads(4), mpirun(4)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const ScratchFolder scratch;
        const Words sharded{"parallel.expert=2", "parallel.zero=1"};
        const Words whole{"parallel.expert=2", "parallel.zero=0"};
        EXPECT_EQ(losses(train_tiny(scratch / "1", ranks, sharded)),
                  losses(train_tiny(scratch / "0", ranks, whole)));
        expect_same_bytes(read_tensors(checkpoint_of(scratch / "1", 20)),
                          read_tensors(checkpoint_of(scratch / "0", 20)));
        train_tiny(scratch / "other", ranks, whole, {"--resume", checkpoint_of(scratch / "1", 10)});
        expect_same_bytes(read_tensors(checkpoint_of(scratch / "other", 20)),
                          read_tensors(checkpoint_of(scratch / "0", 20)));
    }
}

}  // namespace
}  // namespace moesaic::e2e
