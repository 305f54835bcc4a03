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

}  // namespace
}  // namespace moesaic::e2e
