// Every format gives the ids and documents that its bytes hold.
#include "runtime/data/token_file.h"

#include <gtest/gtest.h>

#include "runtime/data/token_writer.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/data/temporary_folder.h"
#include "tests/unit/runtime/data/token_bytes.h"

namespace moesaic {
namespace {

using namespace testing_support;
using Ids = std::vector<i32>;
using Documents = std::vector<Ids>;

struct Opened {
    std::unique_ptr<Tokenizer> tokenizer;
    std::unique_ptr<TokenFile> file;
};

Opened open(const std::string& path, i64 vocabulary = 256, const std::string& end_of_document = "auto",
            TokenFileOptions options = {}) {
    Opened opened;
    opened.tokenizer = make_tokenizer(vocabulary == 256 ? "bytes" : "none");
    options.tokenizer = opened.tokenizer.get();
    options.vocabulary = vocabulary;
    options.end_of_document = resolve_end_of_document(end_of_document, *opened.tokenizer);
    opened.file = open_token_file(list_data_files(path).front(), options);
    return opened;
}

Ids read(const TokenFile& file, i64 first, i64 count) {
    Ids out(static_cast<std::size_t>(count));
    file.read(first, count, out.data());
    return out;
}

std::vector<i64> starts(const TokenFile& file, i64 first, i64 count) {
    std::vector<i64> found;
    file.document_starts(first, count, found);
    return found;
}

/// Reads the file whole, in windows, and its documents window by window.
void expect_documents(const TokenFile& file, const Documents& documents) {
    Ids all;
    std::vector<i64> begins;
    for (const Ids& document : documents) {
        begins.push_back(std::ssize(all));
        all.insert(all.end(), document.begin(), document.end());
    }
    ASSERT_EQ(file.tokens(), std::ssize(all));
    for (i64 first = 0; first <= file.tokens(); ++first) {
        for (i64 count = 0; first + count <= file.tokens(); ++count) {
            ASSERT_EQ(read(file, first, count), Ids(all.begin() + first, all.begin() + first + count));
            std::vector<i64> expected;
            for (const i64 begin : begins)
                if (first <= begin && begin < first + count) expected.push_back(begin);
            ASSERT_EQ(starts(file, first, count), expected) << first << " + " << count;
        }
    }
}

TEST(TokenFile, BinWithoutAHeaderIsNanoGpts) {
    const TemporaryFolder folder;
    const std::string path = folder.write("a.bin", ids({1, 2, 0, 3, 0, 0, 40000}, 2));
    expect_documents(*open(path, 50000, "0").file, {{1, 2, 0}, {3, 0}, {0}, {40000}});
    expect_documents(*open(path, 50000).file, {{1, 2, 0, 3, 0, 0, 40000}});
    TokenFileOptions wide;
    wide.token_type = "uint32";
    expect_documents(*open(folder.write("b.bin", ids({1, 100000}, 4)), 100001, "auto", wide).file,
                     {{1, 100000}});
}

TEST(TokenFile, LlmcsHeadersTellTheType) {
    const TemporaryFolder folder;
    const std::vector<i64> values{5, 9, 5, 7};
    for (const int width : {2, 4}) {
        const std::string path = folder.write("a.bin", llmc_file(values, width));
        const Opened opened = open(path, 10, "9");
        expect_documents(*opened.file, {{5, 9}, {5, 7}});
        EXPECT_EQ(opened.file->layout(), width == 2 ? "llm.c (gpt-2), uint16" : "llm.c (llama-3), uint32");
    }
    expect_documents(*open(folder.write("empty.bin", llmc_file({}, 2)), 10).file, {});
}

TEST(TokenFile, MegatronsTypesAndDocuments) {
    struct Type {
        int code, width;
    };
    for (const Type type : {Type{1, 1}, {2, 1}, {3, 2}, {4, 4}, {5, 8}, {8, 2}}) {
        const TemporaryFolder folder;
        const std::vector<i64> values{1, 2, 3, 4, 5, 6, 7};
        MegatronIndex index = megatron_index({2, 0, 3, 2}, type.width, type.code);
        index.limits = {0, 1, 2, 2,
                        4};  // documents of one, one, no and two sequences; the second has no token
        folder.write("a.bin", ids(values, type.width));
        folder.write("a.idx", index.bytes());
        expect_documents(*open(folder.path() + "/a", 8).file, {{1, 2}, {3, 4, 5, 6, 7}});
        folder.write("a.idx", index.bytes() + std::string(4, '\1'));  // multimodal: a mode for each sequence
        expect_documents(*open(folder.path() + "/a.bin", 8).file, {{1, 2}, {3, 4, 5, 6, 7}});
    }
}

/// tests/reference/check_megatron.py wrote it with megatron.core's IndexedDatasetBuilder.
TEST(TokenFile, APairOfMegatronsOwn) {
    const std::string folder = MOESAIC_SOURCE_DIR "/tests/reference/megatron/";
    const auto sentence = [](i32 index, i32 length) {
        Ids tokens;
        for (i32 i = 0; i < length; ++i) tokens.push_back((7 * index + i) % 100);
        return tokens;
    };
    const auto joined = [](Ids left, const Ids& right) {
        left.insert(left.end(), right.begin(), right.end());
        return left;
    };
    const Opened three = open(folder + "three_documents", 100);
    EXPECT_EQ(three.file->layout(), "Megatron pair, uint16");
    expect_documents(*three.file, {joined(sentence(0, 3), sentence(1, 4)), sentence(2, 5),
                                   joined(joined(sentence(3, 1), sentence(4, 1)), sentence(5, 30))});
    const Opened wide = open(folder + "wide", 100);
    EXPECT_EQ(wide.file->layout(), "Megatron pair, int32");
    expect_documents(*wide.file, {sentence(0, 6), joined(sentence(1, 2), sentence(2, 2))});
}

TEST(TokenFile, NumPysArraysOfOneAndTwoDimensions) {
    const TemporaryFolder folder;
    struct Type {
        const char* descr;
        int width;
    };
    for (const Type type : {Type{"|u1", 1},
                            {"|i1", 1},
                            {"<u2", 2},
                            {"<i2", 2},
                            {"<u4", 4},
                            {"<i4", 4},
                            {"<u8", 8},
                            {"<i8", 8}}) {
        for (const int version : {1, 2, 3}) {
            const std::string data = ids({1, 2, 3, 4, 5, 6}, type.width);
            const std::string one =
                folder.write("a.npy", npy_file(npy_dictionary(type.descr, "(6,)"), data, version));
            expect_documents(*open(one, 7, "3").file, {{1, 2, 3}, {4, 5, 6}});
            const std::string two =
                folder.write("b.npy", npy_file(npy_dictionary(type.descr, "(2, 3)"), data, version));
            expect_documents(*open(two, 7).file, {{1, 2, 3}, {4, 5, 6}});
        }
    }
    const std::string fortran = npy_dictionary("<u2", "(2,)", "True");  // one dimension has one order
    expect_documents(*open(folder.write("c.npy", npy_file(fortran, ids({1, 2}, 2))), 7).file, {{1, 2}});
    expect_documents(*open(folder.write("d.npy", npy_file(npy_dictionary("<u2", "(0, 5)"), "")), 7).file, {});
}

TEST(TokenFile, TextAndJsonLines) {
    const TemporaryFolder folder;
    const std::string bytes("a\0\xFF", 3);
    expect_documents(*open(folder.write("a.txt", bytes)).file, {{'a', 0, 255}});
    const std::string lines =
        "\xEF\xBB\xBF{\"text\": \"ab\", \"other\": [{\"text\": 5}]}\r\n\n"
        "{\"id\": 1.5, \"text\": \"\"}\n  \t\n{\"text\": \"\\u00e9\\n\", \"last\": null}";
    const std::string path = folder.write("a.jsonl", lines);
    expect_documents(*open(path).file, {{'a', 'b', 0}, {0}, {0xC3, 0xA9, '\n', 0}});
    expect_documents(*open(path, 256, "none").file, {{'a', 'b'}, {0xC3, 0xA9, '\n'}});
    expect_documents(*open(path, 256, "7").file, {{'a', 'b', 7}, {7}, {0xC3, 0xA9, '\n', 7}});
    TokenFileOptions other;
    other.text_key = "body";
    expect_documents(*open(folder.write("b.jsonl", "{\"body\":\"x\"}"), 256, "none", other).file, {{'x'}});
    expect_documents(*open(folder.write("c.jsonl", "\n")).file, {});
}

TEST(TokenFile, DeepAndLongLinesAreRead) {
    const TemporaryFolder folder;
    const std::string deep =
        "{\"meta\": " + std::string(200000, '[') + std::string(200000, ']') + ", \"text\": \"x\"}";
    expect_documents(*open(folder.write("a.jsonl", deep), 256, "none").file, {{'x'}});
    const std::string text(3 << 20, 'y');
    EXPECT_EQ(open(folder.write("b.jsonl", "{\"text\": \"" + text + "\"}")).file->tokens(), (3 << 20) + 1);
}

/// Windows of a file that is too large to be checked when it is opened.
TEST(TokenFile, LargeFilesAreCheckedWindowByWindow) {
    const TemporaryFolder folder;
    std::string data(std::size_t{66} << 20, '\0');
    data[data.size() - 1] = '\1';  // the last id is 256
    const Opened opened = open(folder.write("a.bin", data), 200);
    const i64 tokens = opened.file->tokens();
    EXPECT_EQ(read(*opened.file, tokens - 11, 10), Ids(10, 0));
    const std::string error = user_error_of([&] { (void)read(*opened.file, tokens - 10, 10); });
    EXPECT_NE(error.find(fmt::format("a.bin: byte {}: token {} has id 256, outside of the vocabulary of 200",
                                     data.size() - 2, tokens - 1)),
              std::string::npos)
        << error;
}

}  // namespace
}  // namespace moesaic
