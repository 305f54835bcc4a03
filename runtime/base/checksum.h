// XXH64 of a stream of bytes, so that `xxhsum -H64` on a file gives the number that a manifest records.
#pragma once

#include <array>
#include <cstddef>

#include "runtime/base/types.h"

namespace moesaic {

/// Bytes go in piece by piece; the cut between pieces does not matter. Every change within one 8-byte word
/// changes the value. Source: the XXH64 section of the xxHash specification by Y. Collet, seed 0.
class Checksum {
  public:
    void update(const void* data, std::size_t bytes);
    [[nodiscard]] u64 value() const;

  private:
    static constexpr std::size_t kStripeBytes = 32;

    std::array<u64, 4> lanes_ = initial_lanes();
    std::array<std::byte, kStripeBytes> pending_{};
    std::size_t pending_bytes_ = 0;
    u64 total_bytes_ = 0;

    static std::array<u64, 4> initial_lanes();
    void mix_stripe(const std::byte* stripe);
};

[[nodiscard]] u64 checksum_of(const void* data, std::size_t bytes);

}  // namespace moesaic
