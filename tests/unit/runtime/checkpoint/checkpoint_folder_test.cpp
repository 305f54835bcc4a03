// Which checkpoint is the newest complete one, what a path means, and what may be pruned.
#include "runtime/checkpoint/checkpoint_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/unit/runtime/checkpoint/small_checkpoint.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string message_of_resolving(const std::string& path) {
    try {
        return "resolved to " + resolve_checkpoint(path);
    } catch (const UserError& error) {
        return error.what();
    }
}

TEST(CheckpointFolder, NamesAreFixed) {
    EXPECT_EQ(step_folder_name(100), "step-00000100");
    EXPECT_EQ(shard_file_name(1, 4), "shard-00001-of-00004.safetensors");
}

TEST(CheckpointFolder, LatestNamesTheNewest) {
    const ScratchFolder run;
    EXPECT_EQ(find_latest(run.path()), std::nullopt);
    const std::string first = write_small_checkpoint(run.path(), 100);
    const std::string second = write_small_checkpoint(run.path(), 200);
    EXPECT_EQ(find_latest(run.path()), second);
    write_latest(run.path(), 100);
    EXPECT_EQ(read_text(run / "checkpoints/latest"), "step-00000100\n");
    EXPECT_EQ(find_latest(run.path()), first);
    std::filesystem::remove(first + "/manifest.json");
    EXPECT_EQ(find_latest(run.path()), second);
    for (const char* nonsense : {"", "\n", "../../etc", "step-99999999", "step-x", "step-00000200/.."}) {
        write_text(run / "checkpoints/latest", nonsense);
        EXPECT_EQ(find_latest(run.path()), second) << nonsense;
    }
}

TEST(CheckpointFolder, StepsAreOrderedAsNumbers) {
    const ScratchFolder run;
    write_small_checkpoint(run.path(), 99999999);
    const std::string more = write_small_checkpoint(run.path(), 100000000);
    EXPECT_EQ(find_latest(run.path()), more);
}

TEST(CheckpointFolder, APathMayBeACheckpointOrARun) {
    const ScratchFolder run;
    EXPECT_THAT(message_of_resolving(run / "none"), HasSubstr("there is no such folder; name a run folder"));
    EXPECT_THAT(message_of_resolving(run.path()), HasSubstr("is neither a checkpoint nor a run folder"));
    const std::string incomplete = prepare_checkpoint_folder(run.path(), 300);
    EXPECT_THAT(message_of_resolving(run.path()), HasSubstr("has no complete checkpoint; let it train"));
    EXPECT_THAT(message_of_resolving(incomplete), HasSubstr("no complete one stands beside it"));
    const std::string complete = write_small_checkpoint(run.path(), 200);
    for (const std::string& path :
         {complete, complete + "/", run.path(), run.path() + "/", run / "checkpoints"})
        EXPECT_EQ(message_of_resolving(path), "resolved to " + complete);
    EXPECT_THAT(message_of_resolving(incomplete), HasSubstr("incomplete"));
    EXPECT_THAT(message_of_resolving(incomplete), HasSubstr("use " + complete));
}

TEST(CheckpointFolder, PreparingRemovesWhatWasThere) {
    const ScratchFolder run;
    const std::string folder = write_small_checkpoint(run.path(), 100);
    EXPECT_EQ(prepare_checkpoint_folder(run.path(), 100), folder);
    EXPECT_TRUE(std::filesystem::is_empty(folder));
}

TEST(CheckpointFolder, PruningKeepsTheNewestAndTheLatest) {
    const ScratchFolder run;
    const std::string first = write_small_checkpoint(run.path(), 100);
    const std::string wreck = prepare_checkpoint_folder(run.path(), 150);
    const std::string second = write_small_checkpoint(run.path(), 200);
    const std::string third = write_small_checkpoint(run.path(), 300);
    const std::string growing = prepare_checkpoint_folder(run.path(), 400);
    EXPECT_TRUE(checkpoints_to_prune(run.path(), 0).empty());
    EXPECT_THAT(checkpoints_to_prune(run.path(), 3), ElementsAre(wreck));
    EXPECT_THAT(checkpoints_to_prune(run.path(), 1), ElementsAre(second, wreck, first));
    EXPECT_THAT(prune_checkpoints(run.path(), 2), ElementsAre(wreck, first));
    EXPECT_FALSE(std::filesystem::exists(first));
    EXPECT_TRUE(has_manifest(second));
    EXPECT_TRUE(has_manifest(third));
    EXPECT_TRUE(std::filesystem::exists(growing));
}

/// A run that has gone back to step 2: what it left behind neither counts nor goes before there is another
/// fallback.
TEST(CheckpointFolder, PruningCountsTheCourseThatLatestIsOf) {
    const ScratchFolder run;
    for (const i64 step : {2, 4, 5, 6, 9, 10}) write_small_checkpoint(run.path(), step);
    const std::string wreck = prepare_checkpoint_folder(run.path(), 8);
    const auto steps = [&] {
        std::vector<i64> found;
        for (const CheckpointFolder& one : list_checkpoints(run.path())) found.push_back(one.step);
        return found;
    };
    write_latest(run.path(), 2);
    EXPECT_TRUE(checkpoints_to_prune(run.path(), 2).empty());
    EXPECT_TRUE(checkpoints_to_prune(run.path(), 1).empty());
    std::vector<std::vector<i64>> left;
    for (const i64 step : {3, 4, 5}) {
        write_small_checkpoint(run.path(), step);
        write_latest(run.path(), step);
        if (step == 3) {
            EXPECT_THAT(checkpoints_to_prune(run.path(), 2), Contains(wreck));
        }
        prune_checkpoints(run.path(), 2);
        left.push_back(steps());
    }
    EXPECT_THAT(left, ElementsAre(ElementsAre(2, 3), ElementsAre(3, 4), ElementsAre(4, 5)));
}

}  // namespace
}  // namespace moesaic
