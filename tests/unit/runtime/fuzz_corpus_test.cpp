// What the fuzzer has found worth keeping, and what once broke a reader, read again: tests/fuzz.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/fuzz/parsers.h"
#include "tests/support/source_folder.h"

namespace moesaic::fuzz {
namespace {

/// One test for all: each of its own would cost the start of a program.
TEST(FuzzCorpus, IsReadOrRefused) {
    for (const Parser& parser : parsers()) {
        const auto corpus = std::filesystem::path(MOESAIC_SOURCE_DIR) / "tests/fuzz/corpus" / parser.name;
        const Folder folder(parser.name);
        int files = 0;
        for (const auto& entry : std::filesystem::directory_iterator(corpus)) {
            std::ifstream file(entry.path(), std::ios::binary);
            const std::string input{std::istreambuf_iterator<char>(file), {}};
            EXPECT_NO_THROW(feed(parser, input, folder)) << entry.path();
            ++files;
        }
        EXPECT_GT(files, 1) << corpus;
    }
}

}  // namespace
}  // namespace moesaic::fuzz
