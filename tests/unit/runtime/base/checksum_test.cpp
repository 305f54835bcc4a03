// The checksum against published values of XXH64, and its independence of how the bytes are cut.
#include "runtime/base/checksum.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

namespace moesaic {
namespace {

TEST(Checksum, MatchesPublishedValues) {
    EXPECT_EQ(checksum_of("", 0), 0xEF46DB3751D8E999u);
    EXPECT_EQ(checksum_of("a", 1), 0xD24EC4F1A98C6E5Bu);
    EXPECT_EQ(checksum_of("abc", 3), 0x44BC2CF5AD770999u);
    const std::string sentence = "Nobody inspects the spammish repetition";  // longer than one stripe
    EXPECT_EQ(checksum_of(sentence.data(), sentence.size()), 0xFBCEA83C8A378BF1u);
}

TEST(Checksum, DoesNotDependOnTheCuts) {
    std::vector<unsigned char> bytes(200);
    std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(3));
    const u64 whole = checksum_of(bytes.data(), bytes.size());
    for (std::size_t first = 0; first <= bytes.size(); ++first) {
        const std::size_t second = first + (bytes.size() - first) / 3;
        Checksum checksum;
        checksum.update(bytes.data(), first);
        checksum.update(bytes.data() + first, second - first);
        checksum.update(bytes.data() + second, bytes.size() - second);
        EXPECT_EQ(checksum.value(), whole) << first;
    }
}

TEST(Checksum, SeesEveryFlippedBit) {
    std::vector<unsigned char> bytes(67, 0);
    const u64 whole = checksum_of(bytes.data(), bytes.size());
    for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
        bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] ^ (1u << (bit % 8)));
        EXPECT_NE(checksum_of(bytes.data(), bytes.size()), whole) << bit;
        bytes[bit / 8] = static_cast<unsigned char>(bytes[bit / 8] ^ (1u << (bit % 8)));
    }
}

}  // namespace
}  // namespace moesaic
