// Philox against the published vectors, and the moments of the derived distributions.
#include "runtime/base/philox.h"

#include <gtest/gtest.h>

namespace moesaic {
namespace {

TEST(Philox, MatchesPublishedVectors) {  // Random123's kat_vectors for philox4x32 with 10 rounds
    EXPECT_EQ(Philox(std::array<u32, 2>{0u, 0u}).block({0u, 0u, 0u, 0u}),
              (std::array<u32, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
    EXPECT_EQ(Philox(std::array<u32, 2>{0xffffffffu, 0xffffffffu})
                  .block({0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu}),
              (std::array<u32, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
    EXPECT_EQ(Philox(std::array<u32, 2>{0xa4093822u, 0x299f31d0u})
                  .block({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}),
              (std::array<u32, 4>{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST(Philox, NormalHasUnitMoments) {
    const Philox random(7, "weights");
    double sum = 0, squares = 0;
    const int count = 200000;
    for (u64 i = 0; i < count; ++i) {
        const double value = random.normal(i);
        sum += value;
        squares += value * value;
    }
    EXPECT_NEAR(sum / count, 0.0, 0.01);
    EXPECT_NEAR(squares / count, 1.0, 0.02);
}

TEST(Philox, StreamsDifferByNameAndSeed) {
    EXPECT_NE(Philox(1, "a").bits(0), Philox(1, "b").bits(0));
    EXPECT_NE(Philox(1, "a").bits(0), Philox(2, "a").bits(0));
    EXPECT_EQ(Philox(1, "a").bits(5), Philox(1, "a").bits(5));
}

}  // namespace
}  // namespace moesaic
