// Rounding to bfloat16: nearest, ties to even, once; the same in scalar code, in vectors and from f64.
#include "runtime/bfloat16.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "runtime/backend.h"

namespace moesaic {
namespace {

constexpr int kPatterns = 1 << 16;

BFloat16 pattern(int bits) {
    return {static_cast<std::uint16_t>(bits)};
}

/// Every bfloat16 together with f32s below, at and above the middle to its neighbour away from zero.
std::vector<float> values_around_ties() {
    std::vector<float> values;
    for (u32 upper = 0; upper < kPatterns; ++upper) {
        for (const u32 lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
            values.push_back(std::bit_cast<float>(upper << 16 | lower));
        }
    }
    return values;
}

/// By definition: of the two neighbours the nearer, or the even one.
BFloat16 nearest_even(float value) {
    const BFloat16 down{static_cast<std::uint16_t>(std::bit_cast<u32>(value) >> 16)};  // towards zero
    const BFloat16 up{static_cast<std::uint16_t>(down.bits + 1)};
    const bool up_is_infinite = (up.bits & 0x7fffu) == 0x7f80u;
    // The neighbour beyond the largest number stands at 2^128, whose place infinity takes.
    const double above = up_is_infinite ? std::copysign(0x1p128, value) : static_cast<double>(widened(up));
    const double to_down = std::abs(static_cast<double>(value) - static_cast<double>(widened(down)));
    const double to_up = std::abs(above - static_cast<double>(value));
    if (to_down != to_up) return to_down < to_up ? down : up;
    return down.bits % 2 == 0 ? down : up;
}

TEST(BFloat16, WideningAndBackChangesNothing) {
    for (int bits = 0; bits < kPatterns; ++bits) {
        const float wide = widened(pattern(bits));
        if (std::isnan(wide)) {
            EXPECT_TRUE(std::isnan(widened(to_bfloat16(wide)))) << bits;
        } else {
            EXPECT_EQ(to_bfloat16(wide), pattern(bits)) << bits;
        }
    }
}

TEST(BFloat16, RoundsToNearestEven) {
    for (const float value : values_around_ties()) {
        if (std::isnan(value)) {
            EXPECT_TRUE(std::isnan(widened(to_bfloat16(value))));
        } else if (std::isinf(value)) {
            EXPECT_EQ(widened(to_bfloat16(value)), value);
        } else {
            ASSERT_EQ(to_bfloat16(value), nearest_even(value)) << value;
        }
    }
    EXPECT_EQ(widened(to_bfloat16(std::numeric_limits<float>::max())),
              std::numeric_limits<float>::infinity());
}

TEST(BFloat16, RoundsDoublesOnce) {
    const double tie = 1 + 0x1p-8;  // between 1 and 1 + 2^-7; through f32 its neighbours become the tie
    EXPECT_EQ(widened(to_bfloat16(tie)), 1.0F);
    EXPECT_EQ(widened(to_bfloat16(tie + 0x1p-40)), 1 + 0x1p-7F);
    EXPECT_EQ(widened(to_bfloat16(tie - 0x1p-40)), 1.0F);
    EXPECT_EQ(widened(to_bfloat16(-tie - 0x1p-40)), -1 - 0x1p-7F);
    const double odd_tie = 1 + 3 * 0x1p-8;
    EXPECT_EQ(widened(to_bfloat16(odd_tie)), 1 + 0x1p-6F);
    EXPECT_EQ(widened(to_bfloat16(odd_tie - 0x1p-40)), 1 + 0x1p-7F);
    EXPECT_EQ(widened(to_bfloat16(1e300)), std::numeric_limits<float>::infinity());
    EXPECT_TRUE(std::isnan(widened(to_bfloat16(std::nan("")))));
    for (const float value : values_around_ties()) {
        if (std::isnan(value)) continue;
        ASSERT_EQ(to_bfloat16(static_cast<double>(value)), to_bfloat16(value)) << value;
    }
}

TEST(BFloat16, VectorsRoundAlike) {
    const std::vector<float> values = values_around_ties();
    const auto count = static_cast<i64>(values.size());
    const std::unique_ptr<Backend> backend = make_cpu_backend(2);
    const std::unique_ptr<Stream> stream = backend->make_stream("compute");
    std::vector<BFloat16> narrow(values.size());
    std::vector<float> wide(values.size());
    backend->convert(*stream, view_of(values.data(), {count}), view_of(narrow.data(), {count}));
    backend->convert(*stream, view_of(narrow.data(), {count}), view_of(wide.data(), {count}));
    for (std::size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(narrow[i], to_bfloat16(values[i])) << values[i];
        ASSERT_EQ(std::bit_cast<u32>(wide[i]), std::bit_cast<u32>(widened(narrow[i])));
    }
}

}  // namespace
}  // namespace moesaic
