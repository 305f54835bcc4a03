// Which rank of an expert-parallel group holds which expert of a layer, as plain data.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// A permutation of a layer's experts: position p = rank * e + local index holds expert expert_at[p], e the
/// experts of one rank. Routing, records and names speak of experts, the rows of a plan of positions.
struct ExpertPlacement {
    std::vector<i32> expert_at;    ///< [E] by position
    std::vector<i32> position_of;  ///< [E] by expert

    ExpertPlacement() = default;
    /// `experts` names every expert once.
    explicit ExpertPlacement(std::vector<i32> experts);
    [[nodiscard]] bool operator==(const ExpertPlacement&) const = default;
};

/// In the order of their numbers.
[[nodiscard]] ExpertPlacement contiguous_placement(i64 experts);
/// A permutation that follows from seed and layer, every one as likely.
[[nodiscard]] ExpertPlacement permuted_placement(i64 experts, u64 seed, int layer);

/// Rows that each of `ranks` ranks gets where expert x gets counts[x]; a divisor of the experts.
[[nodiscard]] std::vector<i64> loads_of_ranks(const ExpertPlacement& placement, std::span<const i64> counts,
                                              int ranks);
/// The fullest rank's over the mean; 1 where there are no rows.
[[nodiscard]] double rank_load_max_over_mean(const ExpertPlacement& placement, std::span<const i64> counts,
                                             int ranks);

/// As many experts on every rank, loads as even as the greedy rule "longest processing time first" makes them
/// (Graham 1969, with a limit on a bin's items): the experts by falling count, each to the emptiest rank that
/// has a place left. Ranks are then named such that many experts stay where `now` has them; those that stay
/// on a rank keep their local index. A pure function of its arguments in whole numbers: all ranks decide
/// alike. Returns `now` where the fullest rank would not become emptier by at least `least_gain`, a share of
/// its load.
[[nodiscard]] ExpertPlacement placement_by_load(const ExpertPlacement& now, std::span<const i64> counts,
                                                int ranks, double least_gain);

}  // namespace moesaic
