// Copies of hot experts on ranks other than their own, and how an expert's rows are shared out; plain data.
#pragma once

#include <span>
#include <vector>

#include "comm/expert_placement.h"

namespace moesaic {

/// Besides its experts (ExpertPlacement) every expert-parallel rank has some places for copies. An expert's
/// home and its copies compute one part of its rows each: of the rows of one micro-batch, in token order, the
/// home the first `whole - sum of shares` of `whole` parts, then the copies in the order of their places. So
/// who computes a row depends on its micro-batch and the shares alone, and every rank knows it from the
/// counts.
struct ExpertCopies {
    struct Place {
        i32 expert = -1;  ///< -1: nobody uses the place
        i64 share = 0;    ///< of its rows, in parts of `whole`
        bool operator==(const Place&) const = default;
    };
    std::vector<Place> places;  ///< [W*N] those of rank r at [r*N, (r+1)*N)
    std::vector<i64> whole;     ///< [E] parts of an expert's rows; 0: no copies

    [[nodiscard]] bool operator==(const ExpertCopies&) const = default;
    [[nodiscard]] bool any() const;
};

/// W ranks with N places each, none in use.
[[nodiscard]] ExpertCopies no_copies(i64 experts, int ranks, i64 places_of_rank);

/// A part [first, first + count) of an expert's rows.
struct RowRange {
    i64 first = 0, count = 0;
};
/// What a place computes of its expert: `count` of `whole` parts, after `first` others. Without copies the
/// home (place -1) has 1 of 1.
struct PlaceParts {
    i64 first = 0, count = 0, whole = 1;
};
[[nodiscard]] PlaceParts parts_of_place(const ExpertCopies& copies, i32 expert, i64 place);
/// Which of `rows` rows of a micro-batch that is.
[[nodiscard]] RowRange rows_of_parts(const PlaceParts& parts, i64 rows);
/// Which of `rows` rows of a micro-batch an expert's home computes (place -1), or the copy at a place.
[[nodiscard]] RowRange rows_of_place(const ExpertCopies& copies, i32 expert, i64 place, i64 rows);

/// Copies that make ranks even where expert x gets counts[x] rows: again and again the fullest rank gives the
/// emptiest that has a place left as much of its hottest expert as brings either to the mean. A pure function
/// in whole numbers: all ranks decide alike.
[[nodiscard]] ExpertCopies copies_by_load(const ExpertPlacement& placement, std::span<const i64> counts,
                                          int ranks, i64 places_of_rank);

/// Rows that each rank gets, but for the rounding of a micro-batch's parts.
[[nodiscard]] std::vector<i64> loads_of_ranks(const ExpertPlacement& placement, const ExpertCopies& copies,
                                              std::span<const i64> counts, int ranks);
/// The fullest rank's over the mean; 1 where there are no rows.
[[nodiscard]] double rank_load_max_over_mean(const ExpertPlacement& placement, const ExpertCopies& copies,
                                             std::span<const i64> counts, int ranks);

}  // namespace moesaic
