// A keyed permutation of [0, n) that needs no table.
#pragma once

#include <string_view>

#include "runtime/base/philox.h"
#include "runtime/base/types.h"

namespace moesaic {

/// A bijection of [0, n) in O(1) memory, chosen by (seed, name): a balanced Feistel network on the next even
/// number of bits, applied again while its value lies outside of [0, n) (cycle walking: at most four
/// applications on average). Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
class KeyedPermutation {
  public:
    /// 1 <= n < 2^62.
    KeyedPermutation(i64 n, u64 seed, std::string_view name);

    /// The element at `position`, both in [0, n).
    [[nodiscard]] i64 operator()(i64 position) const;
    /// The position of `element`, both in [0, n).
    [[nodiscard]] i64 position_of(i64 element) const;
    [[nodiscard]] i64 size() const { return n_; }

  private:
    [[nodiscard]] u64 encrypt(u64 value) const;
    [[nodiscard]] u64 decrypt(u64 value) const;
    /// What exchanges 0 and 1 before the rounds, or does not.
    [[nodiscard]] u64 coin() const;

    i64 n_;
    int half_bits_;
    Philox random_;
};

}  // namespace moesaic
