// Regular expressions: what is read, what is refused, and that nothing runs for ever.
#include "runtime/data/tokenizers/text_pattern.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using testing_support::user_error_of;

std::vector<std::string> matches(std::string_view pattern, std::string_view text) {
    const TextPattern compiled(pattern, "here");
    TextPattern::Matcher matcher(compiled);
    std::vector<std::string> found;
    for (std::size_t at = 0; matcher.find(text, at); at = matcher.end()) {
        found.emplace_back(text.substr(matcher.begin(), matcher.end() - matcher.begin()));
    }
    return found;
}

using Words = std::vector<std::string>;

TEST(TextPattern, Gpt2) {
    EXPECT_EQ(matches(kGpt2Pattern, "it's  2nd\n\n x²!"),
              (Words{"it", "'s", " ", " 2", "nd", "\n\n", " x", "²", "!"}));
    EXPECT_EQ(matches(kGpt2Pattern, ""), Words{});
    EXPECT_EQ(matches(kGpt2Pattern, std::string_view("a\0b", 3)), (Words{"a", std::string(1, '\0'), "b"}));
}

TEST(TextPattern, WhiteSpaceIsUnicodes) {
    EXPECT_EQ(matches(R"(\s+)", "a\u0085\u00a0\u3000b\u180ec\u200bd"), (Words{"\u0085\u00a0\u3000"}));
    EXPECT_EQ(matches(R"(\S+)", "a\u180eb\u2028c"), (Words{"a\u180eb", "c"}));
    EXPECT_EQ(matches(R"([^\s\d]+)", "ab1 c"), (Words{"ab", "c"}));
    EXPECT_EQ(matches(R"([\S]+)", "a \U0010ffff"), (Words{"a", "\U0010ffff"}));
}

TEST(TextPattern, CommonSyntax) {
    EXPECT_EQ(matches(R"((?i:'S|'t)|\p{N}{1,3}|\p{Lu}|[^\r\n\p{L}])", "'s12345A!"),
              (Words{"'s", "123", "45", "A", "!"}));
    EXPECT_EQ(matches(R"(\x{41}+|[\-\]]|a(?=b)|a*?c|(?<!x)y)", "AAab-]acyxy"),
              (Words{"AA", "a", "-", "]", "ac", "y"}));
    EXPECT_EQ(matches(R"(a$|^b)", "a\nb"), (Words{"a", "b"})) << "lines, as in Oniguruma";
    EXPECT_EQ(matches(pattern_of_text("a.[\\é"), "xa.[\\éa."), Words{"a.[\\é"});
}

TEST(TextPattern, WhatEnginesReadDifferentlyIsRefused) {
    for (const char* pattern :
         {R"(\w+)",    R"(\b)",     R"(\h)",    R"(\v)",      R"(\R)",       R"(\X)",  R"(\1)",
          R"(\Qa\E)",  R"(\u0041)", R"(\x41)",  R"(\p{Han})", R"(\p{^L})",   R"(\pX)", R"(\p)",
          R"(\p{L)",   "\\",        "[",        "[a",         "[[:alpha:]]", "[a&&b]", "[]a]",
          "[a[b]]",    "(?<n>a)",   "(?P<n>a)", "(?x)a",      "(?#a)",       "(?R)",   "(*UTF)a",
          "(*ACCEPT)", "a{,3}",     "a{",       "a{1,2}+",    "a{2}?",       "\\\xff"}) {
        const std::string error =
            user_error_of([&] { const TextPattern compiled(pattern, "f.json: x.Regex"); });
        EXPECT_EQ(error.rfind("f.json: x.Regex: the regular expression has ", 0), 0u)
            << pattern << ": " << error;
    }
}

TEST(TextPattern, WhatIsNotValidIsRefused) {
    for (const char* pattern : {"(", ")", "a)", "*", "a**b{2}{", "[z-a]", "(?<=a+)b", "\xff", "a\xc0\xaf",
                                "a{99999}", "(((a{1000}){1000}){1000})"}) {
        const std::string error = user_error_of([&] { const TextPattern compiled(pattern, "here"); });
        EXPECT_EQ(error.rfind("here: the regular expression ", 0), 0u) << pattern << ": " << error;
    }
    const std::string nested = std::string(100000, '(') + "a" + std::string(100000, ')');
    EXPECT_NE(user_error_of([&] { const TextPattern compiled(nested, "here"); }), "");
    for (const char* pattern : {"", "a*", "a|", "(?=a)", "^", "(?i)"}) {
        const std::string error = user_error_of([&] { const TextPattern compiled(pattern, "here"); });
        EXPECT_NE(error.find("can match nothing at all"), std::string::npos) << pattern << ": " << error;
    }
}

TEST(TextPattern, ACatastrophicPatternEnds) {
    for (const char* pattern : {"(?:a+)+[bc]", "(?:a|a)*[bc]", "(?:a|aa)+[bc]"}) {
        const std::string error = user_error_of([&] { (void)matches(pattern, std::string(100000, 'a')); });
        EXPECT_NE(error.find("here: the regular expression gave up"), std::string::npos) << error;
    }
}

}  // namespace
}  // namespace moesaic
