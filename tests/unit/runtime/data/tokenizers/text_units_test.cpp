// UTF-8, byte symbols and the normal form: what tokenizers are made of.
#include <gtest/gtest.h>

#include <set>

#include "runtime/data/tokenizers/byte_symbols.h"
#include "runtime/data/tokenizers/nfc.h"
#include "runtime/data/tokenizers/utf8.h"

namespace moesaic {
namespace {

/// Decodes any lead byte's form, then refuses what is not the shortest, a surrogate or too large.
bool is_one_character(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const std::size_t length = text.empty()     ? 0
                               : byte(0) < 0x80 ? 1
                               : byte(0) < 0xc0 ? 0
                               : byte(0) < 0xe0 ? 2
                               : byte(0) < 0xf0 ? 3
                               : byte(0) < 0xf8 ? 4
                                                : 0;
    if (length == 0 || length != text.size()) return false;
    char32_t value = length == 1 ? byte(0) : byte(0) & ((1u << (7 - length)) - 1);
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return false;
        value = value * 64 + (byte(i) & 0x3f);
    }
    const char32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    return value >= least[length] && value <= 0x10ffff && !(0xd800 <= value && value <= 0xdfff);
}

TEST(Utf8, SequencesAgreeWithADecoderOnAllShortTexts) {
    const int edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                         0xe0, 0xe1, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff};
    for (const int a : edges) {
        for (const int b : edges) {
            for (const int c : edges) {
                for (const int d : edges) {
                    std::string text;
                    for (const int byte : {a, b, c, d}) text.push_back(static_cast<char>(byte));
                    std::size_t expected = 0;
                    for (std::size_t n = 1; n <= 4; ++n) {
                        if (is_one_character(text.substr(0, n))) expected = n;
                    }
                    ASSERT_EQ(utf8_sequence_bytes(text), expected) << a << ' ' << b << ' ' << c << ' ' << d;
                    ASSERT_EQ(utf8_sequence_bytes(text.substr(0, 2)), expected <= 2 ? expected : 0);
                }
            }
        }
    }
}

TEST(Utf8, CodePointsComeBack) {
    for (const char32_t point :
         {U'\0', U'\x7f', U'\x80', U'\x7ff', U'\x800', U'\xffff', U'\x10000', U'\x10ffff'}) {
        std::string text;
        append_code_point(text, point);
        ASSERT_EQ(utf8_sequence_bytes(text), text.size());
        EXPECT_EQ(first_code_point(text, text.size()), point);
    }
}

TEST(Utf8, WhiteSpaceAtBothEnds) {
    EXPECT_EQ(leading_white_space("\u3000a"), 3u);
    EXPECT_EQ(trailing_white_space("a\u3000"), 3u);
    EXPECT_EQ(trailing_white_space("a\u00a0"), 2u);
    EXPECT_EQ(trailing_white_space(" "), 1u);
    EXPECT_EQ(leading_white_space("\u180e"), 0u) << "white space until Unicode 6.2";
    EXPECT_EQ(leading_white_space("\u200b"), 0u);
    EXPECT_EQ(trailing_white_space(""), 0u);
    EXPECT_EQ(trailing_white_space("\x80"), 0u);
}

TEST(ByteSymbols, AreTheirOwnInverseAndPrintableFirst) {
    std::set<char32_t> symbols;
    for (int byte = 0; byte < 256; ++byte) {
        const std::string text(1, static_cast<char>(byte));
        symbols.insert(symbol_of_byte(static_cast<unsigned char>(byte)));
        EXPECT_EQ(bytes_of_symbols(symbols_of_bytes(text)), text) << byte;
    }
    EXPECT_EQ(symbols.size(), 256u);
    EXPECT_EQ(symbols_of_bytes(" \n\x7f\xad"), "ĠĊġŃ");
    EXPECT_EQ(printable_first_bytes()[0], '!');
    EXPECT_EQ(printable_first_bytes()[187], 0xff);
    EXPECT_EQ(printable_first_bytes()[188], 0);
    EXPECT_EQ(bytes_of_symbols(" "), std::nullopt);
    EXPECT_EQ(bytes_of_symbols("▁a"), std::nullopt);
    EXPECT_EQ(bytes_of_symbols("a\xff"), std::nullopt);
}

TEST(Nfc, ComposesAndKeepsWhatIsNoText) {
    EXPECT_EQ(normalize_nfc("cafe\u0301 A\u030a \u212b"), "caf\u00e9 \u00c5 \u00c5");
    EXPECT_EQ(normalize_nfc("\u1100\u1161\u11a8"), "\uac01");
    EXPECT_EQ(normalize_nfc("q\u0307\u0323"), "q\u0323\u0307");
    EXPECT_EQ(normalize_nfc(""), "");
    const std::string odd(
        "a\0b\xff"
        "e\xff\u0301\xe4\xbd",
        11);
    EXPECT_EQ(normalize_nfc(odd), odd) << "an ill-formed byte stands between the letter and its accent";
}

}  // namespace
}  // namespace moesaic
