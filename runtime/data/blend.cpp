#include "runtime/data/blend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/base/error.h"
#include "runtime/data/permutation.h"

namespace moesaic {

namespace {

constexpr int kOffsetBits = 42;                    // of u_b; blocks repeat after 2^42
constexpr u64 kOne = u64{1} << (kOffsetBits + 6);  // 64 slots
constexpr u64 kOffsetMask = (u64{1} << kOffsetBits) - 1;
static_assert(Blend::kBlock == 64);

/// The digits of the block's number behind the binary point, in reverse: u_b in units of 2^-42.
u64 offset_of(i64 block) {
    u64 reversed = 0;
    for (int bit = 0; bit < kOffsetBits; ++bit)
        reversed = reversed << 1 | (static_cast<u64>(block) >> bit & 1);
    return reversed;
}

}  // namespace

Blend::Blend(const std::vector<double>& weights) {
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    MOESAIC_ASSERT(total > 0 && std::isfinite(total), "weights add up to {}", total);
    double sum = 0;
    std::size_t positive = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        MOESAIC_ASSERT(weights[i] >= 0, "weight {} of source {}", weights[i], i);
        sum += weights[i];
        const auto limit = static_cast<u64>(std::llround(sum / total * static_cast<double>(kOne)));
        limits_.push_back(std::clamp(limit, limits_.back(), kOne));
        if (weights[i] > 0) {
            ++positive;
            only_ = i + 1;
        }
    }
    limits_.back() = kOne;
    // Rounding must not leave a crumb to a source without weight at the end.
    for (std::size_t i = weights.size(); i-- > 0 && weights[i] == 0;) limits_[i] = kOne;
    if (positive > 1) only_ = 0;
}

i64 Blend::slots_below(i64 block, u64 limit) {
    const u64 offset = offset_of(block);
    return limit <= offset ? 0 : static_cast<i64>((limit - offset - 1) >> kOffsetBits) + 1;
}

i64 Blend::slots_below_in_earlier_blocks(i64 block, u64 limit) {
    // Whole slots are below the limit in every block, the slot that the limit cuts in those with a small
    // offset.
    i64 count = static_cast<i64>(limit >> kOffsetBits) * block;
    const u64 part = limit & kOffsetMask;
    i64 digits = 0;  // the low digits of the block numbers whose offsets agree with `part` so far
    for (int bit = 0; bit < kOffsetBits; ++bit) {
        if ((part >> (kOffsetBits - 1 - bit) & 1) == 0) continue;
        // Block numbers with these digits and then a 0 have smaller offsets: one in 2^(bit + 1).
        if (digits < block) count += ((block - digits - 1) >> (bit + 1)) + 1;
        digits |= i64{1} << bit;
    }
    return count;
}

Blend::Draw Blend::draw(u64 seed, i64 number) const {
    MOESAIC_ASSERT(number >= 0, "sequence {}", number);
    if (only_ > 0) return {only_ - 1, number};
    const i64 block = number / kBlock;
    const KeyedPermutation order(kBlock, seed, fmt::format("blend block {}", block));
    const i64 slot = order(number % kBlock);
    const u64 point = (static_cast<u64>(slot) << kOffsetBits) + offset_of(block);
    const auto above = std::upper_bound(limits_.begin(), limits_.end(), point);
    const auto source = static_cast<std::size_t>(above - limits_.begin()) - 1;
    return {source, count_before(block, source) + slot - slots_below(block, limits_[source])};
}

i64 Blend::count_before(i64 block, std::size_t source) const {
    return slots_below_in_earlier_blocks(block, limits_[source + 1]) -
           slots_below_in_earlier_blocks(block, limits_[source]);
}

std::optional<i64> Blend::first_number_from(u64 seed, const Draw& wanted) const {
    if (only_ > 0) return wanted.source == only_ - 1 ? std::optional(wanted.ordinal) : std::nullopt;
    constexpr i64 kMostBlocks = i64{1} << kOffsetBits;
    i64 low = 0, high = 1;  // the block: count_before(low) <= ordinal < count_before(high)
    while (count_before(high, wanted.source) <= wanted.ordinal) {
        low = high;
        high *= 2;
        if (high > kMostBlocks) return std::nullopt;
    }
    while (high - low > 1) {
        const i64 middle = low + (high - low) / 2;
        (count_before(middle, wanted.source) <= wanted.ordinal ? low : high) = middle;
    }
    for (i64 number = low * kBlock; number < high * kBlock; ++number) {
        const Draw found = draw(seed, number);
        if (found.source == wanted.source && found.ordinal >= wanted.ordinal) return number;
    }
    MOESAIC_ASSERT(false, "source {} ordinal {} is not in block {}", wanted.source, wanted.ordinal, low);
    return std::nullopt;
}

}  // namespace moesaic
