// GPT-2's merges file: ids by hand, every kind of damage, and any bytes as text.
#include <gtest/gtest.h>

#include "runtime/base/philox.h"
#include "runtime/data/tokenizer.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/data/temporary_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using testing_support::TemporaryFolder;
using testing_support::user_error_of;
using Ids = std::vector<i32>;

const std::string kHeader = "#version: 0.2\n";
const std::string kGpt2 = std::string(MOESAIC_SOURCE_DIR) + "/configs/data/gpt2-vocab.bpe";

std::unique_ptr<Tokenizer> tokenizer_of(const std::string& text) {
    const TemporaryFolder folder;
    return make_tokenizer(folder.write("merges.txt", text));
}

TEST(MergesFile, IdsByHand) {
    // Printable bytes first: '!' is 0, 'a' 64, 'b' 65; the others behind them: NUL is 188, the space 220.
    const auto tokenizer = tokenizer_of(kHeader + "a b\nĠ ab\nab ab\n");
    EXPECT_EQ(tokenizer->vocabulary_size(), 260);
    EXPECT_EQ(tokenizer->end_of_text(), 259);
    EXPECT_FALSE(tokenizer->is_bytewise());
    EXPECT_EQ(tokenizer->encode("ab"), Ids{256});
    EXPECT_EQ(tokenizer->encode("abab ab ba"), (Ids{258, 257, 220, 65, 64}));
    EXPECT_EQ(tokenizer->encode(std::string("\0\xff!", 3)), (Ids{188, 187, 0}));
    EXPECT_TRUE(tokenizer->encode("").empty());
    EXPECT_EQ(tokenizer->decode(Ids{258, 257, 259}), "abab ab<|endoftext|>");
    EXPECT_NE(tokenizer->describe().find("merges.txt, vocabulary 260"), std::string::npos)
        << tokenizer->describe();
}

TEST(MergesFile, Gpt2KnowsItsEndButTextNeverHoldsIt) {
    const auto tokenizer = make_tokenizer(kGpt2);
    EXPECT_EQ(tokenizer->vocabulary_size(), 50257);
    EXPECT_EQ(tokenizer->end_of_text(), 50256);
    EXPECT_EQ(tokenizer->encode("Hello world"), (Ids{15496, 995}));
    for (const i32 id : tokenizer->encode("<|endoftext|> <|endoftext|>")) EXPECT_NE(id, 50256);
    EXPECT_EQ(tokenizer->fingerprint(), "xxh64:f161fce364073fbc") << "as xxhsum -H64 prints it";
    EXPECT_EQ(make_tokenizer("bytes")->fingerprint(), "bytes");
}

TEST(MergesFile, IdsBeyondTheVocabularyAreNamed) {
    const auto tokenizer = tokenizer_of(kHeader + "a b\n");
    for (const i32 id : {-1, 258, 2000000000}) {
        const std::string error = user_error_of([&] { (void)tokenizer->decode(Ids{0, id}); });
        EXPECT_EQ(error.rfind(fmt::format("token {} is not in the vocabulary", id), 0), 0u) << error;
        EXPECT_NE(error.find("0 to 257"), std::string::npos) << error;
    }
    EXPECT_NE(user_error_of([] { (void)make_tokenizer("bytes")->decode(Ids{256}); }), "");
}

TEST(MergesFile, RandomBytesComeBack) {
    const auto tokenizer = make_tokenizer(kGpt2);
    const Philox random(1, "random bytes");
    const std::string pieces[] = {" ",        "\n", "'s", "好",         "\u0301", "\xff",
                                  "\xe5\xa5", "a",  "1",  "\U0001f600", "the "};
    u64 draw = 0;
    for (int round = 0; round < 600; ++round) {
        std::string text;
        const bool mixed = round % 2 == 0;
        const auto length = static_cast<std::size_t>(random.uniform(draw++) * 200);
        while (text.size() < length) {
            const double value = random.uniform(draw++);
            if (mixed) {
                text += pieces[static_cast<std::size_t>(value * std::size(pieces))];
            } else {
                text.push_back(static_cast<char>(static_cast<unsigned char>(value * 256)));
            }
        }
        const Ids ids = tokenizer->encode(text);
        ASSERT_EQ(tokenizer->decode(ids), text);
        ASSERT_LE(ids.size(), text.size());
    }
}

TEST(MergesFile, AMegabyteOfOneLetterOfSpacesAndOfGarbage) {
    const auto tokenizer = make_tokenizer(kGpt2);
    for (const char* unit : {"a", " ", "\n", "\xff", "好", "1", "a ", " \n", "\xff ", "e\u0301"}) {
        std::string text;
        while (text.size() < (1u << 20)) text += unit;
        EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
    }
}

struct Damage {
    const char* what;
    std::string text;
    const char* error;
};

TEST(MergesFile, DamageIsNamedWithItsLine) {
    const std::string half = kHeader + "a b\nc d";
    const std::vector<Damage> table{
        {"nothing", "", ":1: the file is empty"},
        {"no header", "a b\nc d\n", ":1: the file does not begin"},
        {"another file", "{\"model\": 1}\n", ":1: the file does not begin"},
        {"header alone", kHeader, "no merge follows"},
        {"cut in the header", "#vers", ":1: the last line has no end"},
        {"cut in a line", half, ":3: the last line has no end"},
        {"blank line", kHeader + "a b\n\nc d\n", ":3: '' is no merge"},
        {"blank line at the end", kHeader + "a b\n\n", ":3: '' is no merge"},
        {"one part", kHeader + "ab\n", ":2: 'ab' is no merge"},
        {"three parts", kHeader + "a b c\n", ":2: 'a b c' is no merge"},
        {"two spaces", kHeader + "a  b\n", ":2: 'a  b' is no merge"},
        {"space at the end", kHeader + "a \n", ":2: 'a ' is no merge"},
        {"unknown part", kHeader + "a b\nab cd\n", ":3: 'cd' is no token"},
        {"part made later", kHeader + "ab c\na b\n", ":2: 'ab' is no token"},
        {"the same merge", kHeader + "a b\nc d\na b\n", ":4: makes the token ab that line 2 already makes"},
        {"the same token", kHeader + "a b\nb c\nab c\na bc\n",
         ":5: makes the token abc that line 4 already makes"},
        {"CR LF", "#version: 0.2\r\na b\r\n", ":2: 'b\\x0d' holds a character"},
        {"SentencePiece", kHeader + "▁ t\n", ":2: '▁' holds a character"},
        {"NUL", kHeader + std::string("a \0\n", 4), ":2: '\\x00' holds a character"},
        {"no UTF-8", kHeader + "a \xff\n", ":2: '\xff' holds a character"},
        {"one endless line", kHeader + std::string(1 << 20, 'a') + "\n", ":2: 'aaa"},
    };
    for (const Damage& damage : table) {
        SCOPED_TRACE(damage.what);
        const std::string error = user_error_of([&] { (void)tokenizer_of(damage.text); });
        EXPECT_NE(error.find("merges.txt:"), std::string::npos) << error;
        EXPECT_NE(error.find(damage.error), std::string::npos) << error;
        EXPECT_NE(error.find("; "), std::string::npos) << "no remedy: " << error;
        EXPECT_LT(error.size(), 400u);
    }
}

/// A file that is cut anywhere but behind a line is refused.
TEST(MergesFile, CutAnywhere) {
    const std::string whole = kHeader + "a b\nĠ ab\nab ab\n";
    for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
        const bool at_line_end = bytes > kHeader.size() && whole[bytes - 1] == '\n';
        if (at_line_end) continue;
        EXPECT_NE(user_error_of([&] { (void)tokenizer_of(whole.substr(0, bytes)); }), "") << bytes;
    }
}

TEST(MergesFile, AVocabularyBesideItHasToAgree) {
    std::string json = "{";
    const auto tokenizer = tokenizer_of(kHeader + "a b\n");
    for (i32 id = 0; id < 256; ++id) {
        const std::string byte = tokenizer->decode(Ids{id});
        const std::string symbol = id == 1 ? "\\\"" : byte == "\\" ? "\\\\" : "";
        const auto number = static_cast<unsigned char>(byte[0]);
        std::string shown = symbol;
        if (shown.empty() && id < 188) {
            shown = number < 0x80 ? byte
                                  : std::string{static_cast<char>(0xc0 | number >> 6),
                                                static_cast<char>(0x80 | (number & 0x3f))};
        } else if (shown.empty()) {
            shown = fmt::format("\\u01{:02x}", id - 188);
        }
        json += fmt::format("\"{}\": {}, ", shown, id);
    }
    const auto error_with = [&](const std::string& rest) {
        const TemporaryFolder folder;
        folder.write("vocab.json", rest);
        folder.write("merges.txt", kHeader + "a b\n");
        return user_error_of([&] { (void)make_tokenizer(folder.path()); });
    };
    {
        const TemporaryFolder folder;
        folder.write("vocab.json", json + R"("ab": 256, "<|endoftext|>": 257})");
        folder.write("merges.txt", kHeader + "a b\n");
        EXPECT_EQ(make_tokenizer(folder.path())->vocabulary_size(), 258);
    }
    EXPECT_NE(error_with(json + R"("ab": 257, "<|endoftext|>": 256})")
                  .find("'ab' has another id, by the merges it has 256"),
              std::string::npos);
    EXPECT_NE(error_with(json + R"("ab": 256})").find("'<|endoftext|>' has no id, by the merges it has 257"),
              std::string::npos);
    EXPECT_NE(error_with(json + R"("ab": 256, "<|endoftext|>": 257, "<pad>": 258})").find("holds 259 tokens"),
              std::string::npos);
    for (const char* text : {"", "{", "[]", "{\"a\": [[[[1]]]]}", "\xff"}) {
        EXPECT_NE(error_with(text).find("give the model's tokenizer.json"), std::string::npos) << text;
    }
}

TEST(MakeTokenizer, PathsThatNameNoTokenizer) {
    const TemporaryFolder folder;
    const std::string empty = folder.path() + "/sub/..";
    folder.write("sub/tokenizer.model", "x");
    const std::string model = folder.path() + "/sub";
    for (const std::string& path : {folder.path() + "/missing", std::string(""), std::string("gpt2"),
                                    model + "/tokenizer.model", model, empty, std::string("/dev/null/x")}) {
        const std::string error = user_error_of([&] { (void)make_tokenizer(path); });
        EXPECT_NE(error.find("'" + path), std::string::npos) << error;
        EXPECT_NE(error.find("use `bytes`"), std::string::npos) << error;
    }
    EXPECT_NE(user_error_of([&] { (void)make_tokenizer(model); }).find("SentencePiece"), std::string::npos);
    EXPECT_NE(user_error_of([] { (void)make_tokenizer("/dev/null"); }), "");
}

TEST(MakeTokenizer, AFolderHoldsOneByItsName) {
    const TemporaryFolder folder;
    folder.write("vocab.bpe", kHeader + "a b\n");
    EXPECT_EQ(make_tokenizer(folder.path())->vocabulary_size(), 258);
    folder.write("tokenizer.json",
                 read_text(std::string(MOESAIC_SOURCE_DIR) + "/tests/reference/tokenizers/gpt2_style.json"));
    EXPECT_EQ(make_tokenizer(folder.path())->vocabulary_size(), 700);
}

}  // namespace
}  // namespace moesaic
