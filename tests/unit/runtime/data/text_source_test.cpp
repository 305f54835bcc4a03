// Which files a path names, in which order, with which errors.
#include "runtime/data/text_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using testing_support::TemporaryFolder;
using testing_support::user_error_of;

std::string listing_error(const std::string& path) {
    return user_error_of([&] { (void)list_text_files(path); });
}

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(TextSource, FolderIsListedRecursivelyInByteOrder) {
    const TemporaryFolder folder;
    for (const char* name : {"b.txt", "a/z.txt", "a.txt", "B.txt", "a/deep/x", ".hidden", ".git/config",
                             "README.md", "a/README-more.md", "readme.md", "README.txt"}) {
        folder.write(name, name);
    }
    std::vector<std::string> names;
    for (const TextFile& file : list_text_files(folder.path())) {
        names.push_back(file.name);
        EXPECT_EQ(read_text_file(file.path), file.name);
    }
    EXPECT_EQ(names, (std::vector<std::string>{"B.txt", "README.txt", "a.txt", "a/deep/x", "a/z.txt", "b.txt",
                                               "readme.md"}));
}

TEST(TextSource, TrailingSlashAndLinksChangeNoName) {
    const TemporaryFolder folder;
    const std::string file = folder.write("text/a.txt", "abc");
    std::filesystem::create_symlink(file, folder.path() + "/text/link.txt");
    const auto files = list_text_files(folder.path() + "/text/");
    ASSERT_EQ(files.size(), 2u);
    EXPECT_EQ(files[0].name, "a.txt");
    EXPECT_EQ(files[1].name, "link.txt");
    EXPECT_EQ(read_text_file(files[1].path), "abc");
}

TEST(TextSource, SingleFileIsTakenWhateverItsName) {
    const TemporaryFolder folder;
    const auto files = list_text_files(folder.write("README.md", "text"));
    ASSERT_EQ(files.size(), 1u);
    EXPECT_EQ(files[0].name, "README.md");
}

TEST(TextSource, BytesPassUnchanged) {
    const TemporaryFolder folder;
    std::string text("a\r\nb\0c\xEF\xBB\xBF\xC3\xA9\xFF\x1A\n", 15);
    for (int i = 0; i < 14; ++i) text += text;  // longer than one block of reading
    EXPECT_EQ(read_text_file(folder.write("a.txt", text)), text);
}

TEST(TextSource, WrongPathsAreUserErrors) {
    const TemporaryFolder folder;
    const std::string missing = folder.path() + "/missing.txt";
    const std::string text = listing_error(missing);
    EXPECT_TRUE(text.starts_with(missing + ": no such file or folder;")) << text;
    EXPECT_HAS(text, "name a text file");
    EXPECT_HAS(listing_error("missing.txt"), std::filesystem::current_path().string());
    EXPECT_HAS(listing_error(""), "is empty");
    EXPECT_HAS(listing_error(folder.write("empty.txt", "")), "empty.txt: the file is empty; name");
    EXPECT_HAS(listing_error("/dev/null"), "neither a regular file nor a folder");
}

TEST(TextSource, FolderWithoutTextIsAUserError) {
    const TemporaryFolder folder;
    EXPECT_HAS(listing_error(folder.path()), folder.path() + ": the folder holds no text file");
    folder.write(".hidden", "text");
    folder.write("README.md", "text");
    EXPECT_HAS(listing_error(folder.path()), "README*.md do not count");
}

TEST(TextSource, UnreadableFilesAndFoldersAreUserErrors) {
    const TemporaryFolder folder;
    const std::string gone = folder.path() + "/gone.txt";
    EXPECT_HAS(user_error_of([&] { (void)read_text_file(gone); }), gone + ": cannot be read (No such file");
    // Reading a folder fails for every user, unlike a file without permissions, which root may read.
    EXPECT_HAS(user_error_of([&] { (void)read_text_file(folder.path()); }),
               "cannot be read (Is a directory)");
    if (geteuid() == 0) return;
    const std::string locked = folder.write("locked/a.txt", "text");
    std::filesystem::permissions(locked, std::filesystem::perms::none);
    EXPECT_HAS(user_error_of([&] { (void)read_text_file(locked); }), "cannot be read (Permission denied)");
    std::filesystem::permissions(folder.path() + "/locked", std::filesystem::perms::none);
    EXPECT_HAS(listing_error(folder.path()), "cannot be listed (Permission denied)");
    std::filesystem::permissions(folder.path() + "/locked", std::filesystem::perms::owner_all);
}

}  // namespace
}  // namespace moesaic
