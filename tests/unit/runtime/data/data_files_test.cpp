// Which files a path names, in which order, with which errors.
#include "runtime/data/data_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/unit/runtime/data/temporary_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing_support::TemporaryFolder;
using testing_support::user_error_of;

std::string listing_error(const std::string& path) {
    return user_error_of([&] { (void)list_data_files(path); });
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(DataFiles, FolderIsListedRecursivelyInByteOrder) {
    const TemporaryFolder folder;
    for (const char* name : {"b.txt", "a/z.txt", "a.txt", "B.txt", "a/deep/x", ".hidden", ".git/config",
                             "README.md", "a/README-more.md", "readme.md", "README.txt"}) {
        folder.write(name, name);
    }
    std::vector<std::string> names;
    for (const DataFile& file : list_data_files(folder.path())) {
        names.push_back(file.name);
        EXPECT_EQ(read_text(file.path), file.name);
        EXPECT_EQ(file.format, DataFormat::text);
    }
    EXPECT_EQ(names, (std::vector<std::string>{"B.txt", "README.txt", "a.txt", "a/deep/x", "a/z.txt", "b.txt",
                                               "readme.md"}));
}

TEST(DataFiles, TrailingSlashAndLinksChangeNoName) {
    const TemporaryFolder folder;
    const std::string file = folder.write("text/a.txt", "abc");
    std::filesystem::create_symlink(file, folder.path() + "/text/link.txt");
    const auto files = list_data_files(folder.path() + "/text/");
    ASSERT_EQ(files.size(), 2u);
    EXPECT_EQ(files[0].name, "a.txt");
    EXPECT_EQ(files[1].name, "link.txt");
    EXPECT_EQ(read_text(files[1].path), "abc");
}

TEST(DataFiles, SingleFileIsTakenWhateverItsName) {
    const TemporaryFolder folder;
    const auto files = list_data_files(folder.write("README.md", "text"));
    ASSERT_EQ(files.size(), 1u);
    EXPECT_EQ(files[0].name, "README.md");
}

TEST(DataFiles, WrongPathsAreUserErrors) {
    const TemporaryFolder folder;
    const std::string missing = folder.path() + "/missing.txt";
    const std::string text = listing_error(missing);
    EXPECT_TRUE(text.starts_with(missing + ": no such file or folder;")) << text;
    EXPECT_HAS(text, "name a data file");
    EXPECT_HAS(listing_error("missing.txt"), std::filesystem::current_path().string());
    EXPECT_HAS(listing_error(""), "is empty");
    EXPECT_HAS(listing_error(folder.write("empty.txt", "")), "empty.txt: the file is empty; name");
    EXPECT_HAS(listing_error("/dev/null"), "neither a regular file nor a folder");
}

TEST(DataFiles, FolderWithoutTextIsAUserError) {
    const TemporaryFolder folder;
    EXPECT_HAS(listing_error(folder.path()), folder.path() + ": the folder holds no data file");
    folder.write(".hidden", "text");
    folder.write("README.md", "text");
    EXPECT_HAS(listing_error(folder.path()), "README*.md do not count");
}

TEST(DataFiles, UnreadableFoldersAreUserErrors) {
    if (geteuid() == 0) GTEST_SKIP() << "root reads everything";
    const TemporaryFolder folder;
    folder.write("locked/a.txt", "text");
    std::filesystem::permissions(folder.path() + "/locked", std::filesystem::perms::none);
    EXPECT_HAS(listing_error(folder.path()), "cannot be listed (Permission denied)");
    std::filesystem::permissions(folder.path() + "/locked", std::filesystem::perms::owner_all);
}

std::string shown(const std::vector<DataFile>& files) {
    std::string text;
    for (const DataFile& file : files)
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", file.name, name_of(file.format));
    return text;
}

TEST(DataFiles, FormatsAreJudgedFileByFile) {
    const TemporaryFolder folder;
    for (const char* name : {"a.txt", "b.jsonl", "c.ndjson", "d.bin", "e/f.bin", "e/f.idx", "g.npy", "h.json",
                             "i", "half.bin.partial"}) {
        folder.write(name, name);
    }
    EXPECT_EQ(
        shown(list_data_files(folder.path())),
        "a.txt text, b.jsonl jsonl, c.ndjson jsonl, d.bin bin, e/f megatron, g.npy npy, h.json text, i text");
    EXPECT_EQ(shown(list_data_files(folder.path(), "jsonl")), "b.jsonl jsonl, c.ndjson jsonl, h.json jsonl");
    EXPECT_EQ(shown(list_data_files(folder.path(), "bin")), "d.bin bin, e/f.bin bin");
    EXPECT_EQ(shown(list_data_files(folder.path(), "megatron")), "e/f megatron");
    EXPECT_EQ(shown(list_data_files(folder.path() + "/i", "npy")), "i npy");
    EXPECT_EQ(shown(list_data_files(folder.path() + "/e", "text")), "f.bin text, f.idx text");
    EXPECT_EQ(shown(list_data_files(folder.path() + "/a.txt", "auto")), "a.txt text");
    EXPECT_HAS(user_error_of([&] { (void)list_data_files(folder.path() + "/e", "npy"); }),
               "holds no file of format npy (.npy); ");
    EXPECT_HAS(user_error_of([&] { (void)list_data_files(folder.path(), "parquet"); }), "format 'parquet'");
    folder.write("z.jsonl.gz", "?");
    EXPECT_HAS(listing_error(folder.path()),
               "z.jsonl.gz: a '.gz' file is not a format of training data; unpack");
}

TEST(DataFiles, AMegatronPrefixIsOnePair) {
    const TemporaryFolder folder;
    folder.write("my.corpus_text_document.bin", "x");
    const std::string prefix = folder.path() + "/my.corpus_text_document";
    EXPECT_HAS(listing_error(prefix), "there is " + prefix + ".bin, but no " + prefix + ".idx");
    EXPECT_EQ(shown(list_data_files(prefix + ".bin")), "my.corpus_text_document.bin bin");
    folder.write("my.corpus_text_document.idx", "x");
    for (const char* ending : {"", ".bin", ".idx"}) {
        const std::vector<DataFile> files = list_data_files(prefix + ending);
        EXPECT_EQ(shown(files), "my.corpus_text_document megatron");
        EXPECT_EQ(files.front().path, prefix);
        EXPECT_EQ(shown(list_data_files(prefix + ending, "megatron")), "my.corpus_text_document megatron");
    }
    EXPECT_HAS(user_error_of([&] { (void)list_data_files(prefix, "npy"); }), "no such file");
}

}  // namespace
}  // namespace moesaic
