#include "comm/expert_copies.h"

#include <algorithm>
#include <numeric>

#include "comm/array_index.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

/// What is still to be decided about: rows of every expert's home, and ranks' loads.
class Sharing {
  public:
    Sharing(const ExpertPlacement& placement, std::span<const i64> counts, int ranks, i64 places)
        : placement_(placement),
          ranks_(ranks),
          places_(places),
          home_(counts.begin(), counts.end()),
          load_(loads_of_ranks(placement, counts, ranks)),
          used_(at(ranks), 0),
          copies_(no_copies(std::ssize(counts), ranks, places)) {}

    ExpertCopies decide() {
        const i64 rows = std::reduce(load_.begin(), load_.end());
        mean_ = (rows + ranks_ - 1) / ranks_;
        while (give_once()) {
        }
        for (ExpertCopies::Place& place : copies_.places) {
            if (place.expert < 0) continue;
            i64& whole = copies_.whole[at(place.expert)];
            if (whole == 0) whole = home_[at(place.expert)];
            whole += place.share;
        }
        return std::move(copies_);
    }

  private:
    [[nodiscard]] bool holds(int rank, i32 expert) const {
        const i64 each = std::ssize(home_) / ranks_;
        if (placement_.position_of[at(expert)] / each == rank) return true;
        const auto first = copies_.places.begin() + rank * places_;
        return std::any_of(first, first + places_, [&](const auto& place) { return place.expert == expert; });
    }
    /// The expert of `rank` with most rows at home, -1 for none.
    [[nodiscard]] i32 hottest_at_home(int rank) const {
        const i64 each = std::ssize(home_) / ranks_;
        i32 best = -1;
        for (i64 position = rank * each; position < (rank + 1) * each; ++position) {
            const i32 expert = placement_.expert_at[at(position)];
            if (home_[at(expert)] > (best < 0 ? 0 : home_[at(best)])) best = expert;
        }
        return best;
    }
    bool give_once() {
        const int fullest = static_cast<int>(std::ranges::max_element(load_) - load_.begin());
        const i32 expert = hottest_at_home(fullest);
        if (load_[at(fullest)] <= mean_ || expert < 0) return false;
        int emptiest = -1;
        for (int rank = 0; rank < ranks_; ++rank) {
            if (used_[at(rank)] == places_ || holds(rank, expert)) continue;
            if (emptiest < 0 || load_[at(rank)] < load_[at(emptiest)]) emptiest = rank;
        }
        if (emptiest < 0) return false;
        const i64 share =
            std::min({load_[at(fullest)] - mean_, mean_ - load_[at(emptiest)], home_[at(expert)]});
        if (share <= 0) return false;
        copies_.places[at(emptiest * places_ + used_[at(emptiest)]++)] = {expert, share};
        home_[at(expert)] -= share;
        load_[at(fullest)] -= share;
        load_[at(emptiest)] += share;
        return true;
    }

    const ExpertPlacement& placement_;
    int ranks_;
    i64 places_, mean_ = 0;
    std::vector<i64> home_, load_, used_;
    ExpertCopies copies_;
};

}  // namespace

bool ExpertCopies::any() const {
    return std::ranges::any_of(places, [](const Place& place) { return place.expert >= 0; });
}

ExpertCopies no_copies(i64 experts, int ranks, i64 places_of_rank) {
    return {std::vector<ExpertCopies::Place>(at(ranks * places_of_rank)), std::vector<i64>(at(experts), 0)};
}

PlaceParts parts_of_place(const ExpertCopies& copies, i32 expert, i64 place) {
    const i64 whole = copies.whole[at(expert)];
    if (whole == 0) return {0, place < 0 ? 1 : 0, 1};
    i64 home = whole, before = 0;
    for (i64 other = 0; other < std::ssize(copies.places); ++other) {
        const ExpertCopies::Place& one = copies.places[at(other)];
        if (one.expert != expert) continue;
        home -= one.share;
        if (other < place) before += one.share;
    }
    if (place < 0) return {0, home, whole};
    return {home + before, copies.places[at(place)].share, whole};
}

RowRange rows_of_parts(const PlaceParts& parts, i64 rows) {
    const i64 first = rows * parts.first / parts.whole;
    return {first, rows * (parts.first + parts.count) / parts.whole - first};
}

RowRange rows_of_place(const ExpertCopies& copies, i32 expert, i64 place, i64 rows) {
    return rows_of_parts(parts_of_place(copies, expert, place), rows);
}

ExpertCopies copies_by_load(const ExpertPlacement& placement, std::span<const i64> counts, int ranks,
                            i64 places_of_rank) {
    return Sharing(placement, counts, ranks, places_of_rank).decide();
}

std::vector<i64> loads_of_ranks(const ExpertPlacement& placement, const ExpertCopies& copies,
                                std::span<const i64> counts, int ranks) {
    std::vector<i64> loads = loads_of_ranks(placement, counts, ranks);
    const i64 each = std::ssize(counts) / ranks, places = std::ssize(copies.places) / ranks;
    for (i64 place = 0; place < std::ssize(copies.places); ++place) {
        const i32 expert = copies.places[at(place)].expert;
        if (expert < 0) continue;
        const i64 rows = rows_of_place(copies, expert, place, counts[at(expert)]).count;
        loads[at(place / places)] += rows;
        loads[at(placement.position_of[at(expert)] / each)] -= rows;
    }
    return loads;
}

double rank_load_max_over_mean(const ExpertPlacement& placement, const ExpertCopies& copies,
                               std::span<const i64> counts, int ranks) {
    const std::vector<i64> loads = loads_of_ranks(placement, copies, counts, ranks);
    const i64 rows = std::reduce(loads.begin(), loads.end());
    if (rows == 0) return 1;
    return static_cast<double>(std::ranges::max(loads)) * ranks / static_cast<double>(rows);
}

}  // namespace moesaic
