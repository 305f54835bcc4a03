// The Feistel network behind KeyedPermutation.
#include "runtime/data/permutation.h"

#include <algorithm>
#include <bit>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

// Four rounds suffice for large halves; halves of one or two bits need more to reach all orders evenly.
constexpr u32 kRounds = 10;

}  // namespace

KeyedPermutation::KeyedPermutation(i64 n, u64 seed, std::string_view name)
    : n_(n), half_bits_(0), random_(seed, name) {
    MOESAIC_ASSERT(1 <= n && n < (i64{1} << 62), "n {}", n);
    half_bits_ = std::max(1, (static_cast<int>(std::bit_width(static_cast<u64>(n - 1))) + 1) / 2);
}

u64 KeyedPermutation::coin() const {
    return random_.block({0, kRounds, 0, 0})[0] & 1;
}

u64 KeyedPermutation::encrypt(u64 value) const {
    const u64 mask = (u64{1} << half_bits_) - 1;
    // Feistel networks on four bits or more are even permutations: a keyed coin that exchanges 0 and 1 first
    // gives the odd ones too.
    if (value < 2) value ^= coin();
    u64 left = value >> half_bits_;
    u64 right = value & mask;
    for (u32 round = 0; round < kRounds; ++round) {
        const u64 mixed = left ^ (random_.block({static_cast<u32>(right), round, 0, 0})[0] & mask);
        left = right;
        right = mixed;
    }
    return left << half_bits_ | right;
}

u64 KeyedPermutation::decrypt(u64 value) const {
    const u64 mask = (u64{1} << half_bits_) - 1;
    u64 left = value >> half_bits_;
    u64 right = value & mask;
    for (u32 round = kRounds; round-- > 0;) {
        const u64 mixed = right ^ (random_.block({static_cast<u32>(left), round, 0, 0})[0] & mask);
        right = left;
        left = mixed;
    }
    const u64 before = left << half_bits_ | right;
    return before < 2 ? before ^ coin() : before;
}

i64 KeyedPermutation::operator()(i64 position) const {
    MOESAIC_ASSERT(0 <= position && position < n_, "position {} of {}", position, n_);
    u64 value = static_cast<u64>(position);
    do value = encrypt(value);
    while (value >= static_cast<u64>(n_));
    return static_cast<i64>(value);
}

i64 KeyedPermutation::position_of(i64 element) const {
    MOESAIC_ASSERT(0 <= element && element < n_, "element {} of {}", element, n_);
    u64 value = static_cast<u64>(element);
    do value = decrypt(value);
    while (value >= static_cast<u64>(n_));
    return static_cast<i64>(value);
}

}  // namespace moesaic
