// Who may write in a folder, and for how long.
#include "launch/folder_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "runtime/base/error.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(FolderLock, LastsAsLongAsWhatWasStartedUnderIt) {
    const ScratchFolder scratch;
    const std::string folder = scratch / "below/study";
    pid_t child = -1;
    {
        const FolderLock first(folder, "somebody", {});
        EXPECT_THROW(FolderLock(folder, "somebody", {milliseconds(30), milliseconds(0)}), UserError);
        std::string word = "/bin/sleep", seconds = "60";
        char* const arguments[] = {word.data(), seconds.data(), nullptr};
        ASSERT_EQ(::posix_spawn(&child, "/bin/sleep", nullptr, nullptr, arguments, environ), 0);
    }
    try {
        const FolderLock second(folder, "somebody", {});
        ADD_FAILURE() << "a process that was started under the lock is still there";
    } catch (const UserError& error) {
        EXPECT_THAT(error.what(), HasSubstr("below/study: somebody still writes there"));
        EXPECT_THAT(error.what(), HasSubstr("process " + std::to_string(::getpid()) + " on "));
    }
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    EXPECT_NO_THROW(FolderLock(folder, "somebody", {}));
    EXPECT_FALSE(std::filesystem::exists(folder)) << "the file lies beside it";
}

TEST(FolderLock, WaitsLongerForAHostThatMayBeDead) {
    const ScratchFolder scratch;
    const std::string folder = scratch / "run";
    const FolderLock first(folder, "somebody", {});
    std::ofstream(scratch / ".run.lock") << "7 on another-host\n";  // into the file that is locked
    const auto start = std::chrono::steady_clock::now();
    try {
        const FolderLock second(folder, "somebody", {milliseconds(0), milliseconds(60)});
        ADD_FAILURE() << "it is locked";
    } catch (const UserError& error) {
        EXPECT_THAT(error.what(), HasSubstr("process 7 on another-host"));
    }
    EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(60));
}

}  // namespace
}  // namespace moesaic
