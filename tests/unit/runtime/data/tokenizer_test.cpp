// The byte tokenizer keeps every byte; other names are refused.
#include "runtime/data/tokenizer.h"

#include <gtest/gtest.h>

#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

TEST(Tokenizer, EveryByteIsItsOwnTokenAndComesBack) {
    std::string text;
    for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
    const auto tokenizer = make_tokenizer("bytes");
    EXPECT_EQ(tokenizer->vocabulary_size(), 256);
    EXPECT_TRUE(tokenizer->is_bytewise());
    const std::vector<i32> tokens = tokenizer->encode(text);
    ASSERT_EQ(tokens.size(), 256u);
    for (i32 byte = 0; byte < 256; ++byte) EXPECT_EQ(tokens[static_cast<std::size_t>(byte)], byte);
    EXPECT_EQ(tokenizer->decode(tokens), text);
    EXPECT_TRUE(tokenizer->encode("").empty());
}

TEST(Tokenizer, UnknownNameIsAUserErrorThatNamesTheRightOne) {
    const std::string text = testing_support::user_error_of([] { (void)make_tokenizer("gpt2"); });
    EXPECT_NE(text.find("'gpt2'"), std::string::npos) << text;
    EXPECT_NE(text.find("`bytes`"), std::string::npos) << text;
}

}  // namespace
}  // namespace moesaic
