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

TEST(Npy, WritesFloatsAndReadsIds) {
    const ScratchFolder folder;
    const std::vector<float> values{0.5F, -1.0F};
    {
        NpyWriter writer(folder / "f.npy", {2}, true);
        writer.append(values);
        writer.finish();
    }
    const std::string bytes = read_text(folder / "f.npy");
    EXPECT_NE(bytes.find("'descr': '<f4'"), std::string::npos);
    EXPECT_EQ(std::memcmp(bytes.data() + 128, values.data(), 8), 0);
    EXPECT_THROW((void)read_token_rows(folder / "f.npy"), UserError) << "floats are no ids";

    const std::vector<i32> ids{0, 1, 2, 3, 1 << 30, 5};
    write_npy(folder / "a.npy", ids, {2, 3});
    const TokenRows rows = read_token_rows(folder / "a.npy");
    EXPECT_EQ(rows.rows, 2);
    EXPECT_EQ(rows.columns, 3);
    EXPECT_EQ(rows.ids, ids);
    write_npy(folder / "b.npy", ids, {6});
    EXPECT_EQ(read_token_rows(folder / "b.npy").rows, 1);
    // As NumPy writes int64.
    std::string wide = "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }";
    wide.resize(117, ' ');
    std::string file = std::string("\x93NUMPY\x01\x00\x76\x00", 10) + wide + '\n';
    const i64 numbers[] = {7, i64{1} << 31};
    write_text(folder / "c.npy",
               file + std::string(reinterpret_cast<const char*>(numbers), 8) + std::string(8, '\0'));
    EXPECT_EQ(read_token_rows(folder / "c.npy").ids, (std::vector<i32>{7, 0}));
    write_text(folder / "c.npy", file + std::string(reinterpret_cast<const char*>(numbers), 16));
    EXPECT_THROW((void)read_token_rows(folder / "c.npy"), UserError) << "too large a number";
    const std::string good = read_text(folder / "a.npy");
    for (std::size_t cut = 0; cut < good.size(); ++cut) {
        write_text(folder / "d.npy", good.substr(0, cut));
        EXPECT_THROW((void)read_token_rows(folder / "d.npy"), UserError) << "cut after " << cut;
    }
}

}  // namespace
}  // namespace moesaic
