// Which source every sequence of a blend comes from.
#pragma once

#include <optional>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// Draws from sources in proportion to their weights, as a function of (seed, sequence number) alone, in O(1)
/// memory and with random access. Sequences come in blocks of 64. Block b holds the points (slot + u_b)/64 of
/// [0, 1), which the weights divide among the sources, so that a source has its share of every block rounded
/// down or up; the offsets u_b are the base-2 van der Corput sequence, so that the shares of any number of
/// blocks stay as near as they can, and a source of little weight comes round evenly. A keyed permutation
/// orders the slots of a block. Source: Niederreiter, "Random Number Generation and Quasi-Monte Carlo
/// Methods", 1992, chapter 3.
class Blend {
  public:
    /// At least one weight is positive; none is negative. Shares are rounded to multiples of 2^-48.
    explicit Blend(const std::vector<double>& weights);

    static constexpr i64 kBlock = 64;

    struct Draw {
        std::size_t source = 0;
        i64 ordinal = 0;  ///< of this source's sequences, from 0: each number comes once
    };
    /// Of sequence `number`, from 0. A single source gives ordinal = number.
    [[nodiscard]] Draw draw(u64 seed, i64 number) const;
    /// The first sequence that is drawn from a source with at least that ordinal (they do not ascend within a
    /// block); absent where the source has no share that counts.
    [[nodiscard]] std::optional<i64> first_number_from(u64 seed, const Draw& from) const;

  private:
    /// Sequences of a source in the blocks before `block`.
    [[nodiscard]] i64 count_before(i64 block, std::size_t source) const;
    /// Slots of block `block` below the limit, and of all blocks before it.
    [[nodiscard]] static i64 slots_below(i64 block, u64 limit);
    [[nodiscard]] static i64 slots_below_in_earlier_blocks(i64 block, u64 limit);

    std::vector<u64> limits_{0};  // of the sources' shares, in units of 2^-48: source s has [s, s + 1)
    std::size_t only_ = 0;        // the only source of positive weight, plus one; or 0
};

}  // namespace moesaic
