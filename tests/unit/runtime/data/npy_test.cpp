// The bytes of .npy files, which NumPy's format page fixes.
#include "runtime/data/npy.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "runtime/base/error.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

TEST(Npy, WritesTheFormatThatNumPyReads) {
    const ScratchFolder folder;
    const std::vector<i32> values{0, 1, -2, 3, 1 << 30, 5};
    write_npy(folder / "a.npy", values, {1, 2, 3});
    const std::string bytes = read_text(folder / "a.npy");
    const std::string header = "{'descr': '<i4', 'fortran_order': False, 'shape': (1,2,3,), }";
    EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    EXPECT_EQ(bytes.substr(8, 2), std::string("\x76\x00", 2));
    EXPECT_EQ(bytes.substr(10, header.size()), header);
    EXPECT_EQ(bytes[127], '\n');
    ASSERT_EQ(bytes.size(), 128 + 24u);
    EXPECT_EQ(std::memcmp(bytes.data() + 128, values.data(), 24), 0);
}

TEST(Npy, TakesPiecesAndAppearsComplete) {
    const ScratchFolder folder;
    const std::vector<i32> values{1, 2};
    {
        NpyWriter writer(folder / "a.npy", {2, 2});
        writer.append(values);
        EXPECT_FALSE(std::filesystem::exists(folder / "a.npy"));
    }
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
    NpyWriter writer(folder / "a.npy", {2, 2});
    writer.append(values);
    writer.append(values);
    writer.finish();
    EXPECT_EQ(read_text(folder / "a.npy").size(), 128 + 16u);
    EXPECT_THROW(write_npy(folder / "none/a.npy", values, {2}), Error);
}

}  // namespace
}  // namespace moesaic
