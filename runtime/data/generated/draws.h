// The random numbers of one generated instance, one after the other.
#pragma once

#include <utility>
#include <vector>

#include "runtime/base/error.h"
#include "runtime/base/philox.h"

namespace moesaic {

/// Draws of instance `index` of a keyed stream: a function of (stream, index) alone, at most kMost of them.
class InstanceDraws {
  public:
    static constexpr u64 kMost = 1024;

    InstanceDraws(const Philox& stream, i64 index)
        : stream_(stream), first_(static_cast<u64>(index) * kMost), next_(first_) {}

    /// Uniform in [0, bound), up to a bias of bound / 2^32.
    [[nodiscard]] int below(int bound) {
        MOESAIC_ASSERT(next_ < first_ + kMost, "more than {} draws for an instance", kMost);
        return static_cast<int>((static_cast<u64>(stream_.bits(next_++)) * static_cast<u64>(bound)) >> 32);
    }
    /// The numbers [0, count) in a uniformly random order (Fisher and Yates 1938).
    [[nodiscard]] std::vector<int> permutation(int count) {
        std::vector<int> order(static_cast<std::size_t>(count));
        for (int i = 0; i < count; ++i) order[static_cast<std::size_t>(i)] = i;
        for (int i = count - 1; i > 0; --i)
            std::swap(order[static_cast<std::size_t>(i)], order[static_cast<std::size_t>(below(i + 1))]);
        return order;
    }

  private:
    const Philox& stream_;
    u64 first_, next_;
};

}  // namespace moesaic
