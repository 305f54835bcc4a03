// Files that appear complete or not at all; headers that are written once the end is known.
#include "runtime/base/atomic_file.h"

#include <gtest/gtest.h>

#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

TEST(AtomicFile, RewritesWhatWasWritten) {
    const ScratchFolder folder;
    AtomicFile file(folder / "a");
    file.write("count: ???\n");
    file.write("1 2 3");
    file.rewrite(7, "003");
    file.write(" 4");
    EXPECT_FALSE(std::filesystem::exists(folder / "a"));
    file.commit();
    EXPECT_EQ(read_text(folder / "a"), "count: 003\n1 2 3 4");
    EXPECT_EQ(file.bytes_written(), 18);
}

TEST(AtomicFileDeathTest, NothingIsRewrittenBehindTheEnd) {
    const ScratchFolder folder;
    AtomicFile file(folder / "a");
    file.write("abc");
    EXPECT_DEATH(file.rewrite(2, "xx"), "2 bytes at 2 of 3");
}

}  // namespace
}  // namespace moesaic
