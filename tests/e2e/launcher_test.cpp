// How the program takes what a launcher says of it.
#include <filesystem>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

// A launcher of another MPI: every process would be alone, and train into the same folder.
TEST(Launcher, OfAnotherMpiIsRefused) {
    if (!have_mpi()) GTEST_SKIP() << "built without MPI";
    const ScratchFolder scratch;
    CommandOptions options;
    options.environment = {{"PMI_SIZE", "2"}, {"PMI_RANK", "0"}};
    const CommandResult result = moesaic(tiny(scratch / "out"), kAlone, options);
    if (result.err.find("PMI") != std::string::npos && result.code != 2)
        GTEST_SKIP() << "this MPI speaks PMI and finds no server: " << result.err;
    expect_failure(result, 2, {"the launcher belongs to another MPI"});
    EXPECT_FALSE(std::filesystem::exists(scratch / "out"));
}

// srun without --mpi: every task would be alone in the same way.
TEST(Launcher, TasksOfSrunThatDoNotKnowOfEachOtherAreRefused) {
    const ScratchFolder scratch;
    for (const char* rank : {"0", "1"}) {
        CommandOptions options;
        options.environment = {{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", rank}};
        const CommandResult result = moesaic(tiny(scratch / "out"), kAlone, options);
        EXPECT_EQ(result.code, 2) << result.text();
        EXPECT_EQ(occurrences(result.err, "srun started 2 processes"), *rank == '0' ? 1 : 0) << result.err;
        EXPECT_EQ(occurrences(result.err, "srun --mpi=pmix"), *rank == '0' ? 1 : 0) << result.err;
    }
    EXPECT_FALSE(std::filesystem::exists(scratch / "out"));
}

}  // namespace
}  // namespace moesaic::e2e
