// Counter-based random numbers (Philox4x32-10): a value is a function of (key, counter), never of the layout.
#pragma once

#include <array>
#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

/// One keyed stream of random numbers with random access. Source: Salmon et al., "Parallel random numbers:
/// as easy as 1, 2, 3", SC 2011 (Philox4x32, 10 rounds).
class Philox {
  public:
    /// The key is derived from a seed and a name, so that equal seeds with other names give unrelated
    /// streams.
    Philox(u64 seed, std::string_view name);
    /// The raw key, as in the published test vectors.
    explicit Philox(std::array<u32, 2> key) : key_(key) {}

    [[nodiscard]] std::array<u32, 4> block(std::array<u32, 4> counter) const;
    /// 32 random bits, element `index` of the stream.
    [[nodiscard]] u32 bits(u64 index) const;
    /// Uniform in [0, 1) with 53 random bits.
    [[nodiscard]] double uniform(u64 index) const;
    /// Standard normal (Box-Muller on two 32-bit uniforms in (0, 1]).
    [[nodiscard]] double normal(u64 index) const;

  private:
    std::array<u32, 2> key_;
};

/// 64-bit hash of a name (FNV-1a), stable over platforms and versions.
[[nodiscard]] u64 hash_name(std::string_view name);

}  // namespace moesaic
