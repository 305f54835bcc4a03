#include "comm/expert_copies.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moesaic {
namespace {

std::vector<i64> zipf(i64 experts, double rows) {
    std::vector<i64> counts;
    for (i64 x = 0; x < experts; ++x) counts.push_back(static_cast<i64>(rows / static_cast<double>(x + 1)));
    return counts;
}

TEST(ExpertCopies, NoneBesidesTheHome) {
    const ExpertCopies none = no_copies(4, 2, 3);
    EXPECT_FALSE(none.any());
    EXPECT_EQ(none.places.size(), 6u);
    EXPECT_EQ(rows_of_place(none, 2, -1, 7).count, 7);
    EXPECT_EQ(rows_of_place(none, 2, 4, 7).count, 0);
}

/// However many rows a micro-batch has, each is computed once, home first and then copy by copy.
TEST(ExpertCopies, EveryRowOnce) {
    ExpertCopies copies = no_copies(4, 3, 2);
    copies.places[1] = {2, 30};
    copies.places[4] = {2, 15};
    copies.places[5] = {0, 1};
    copies.whole = {3, 0, 100, 0};
    for (i64 rows = 0; rows < 250; ++rows) {
        i64 next = 0;
        for (const i64 place : {-1, 1, 4}) {
            const RowRange part = rows_of_place(copies, 2, place, rows);
            EXPECT_EQ(part.first, next);
            EXPECT_NEAR(static_cast<double>(part.count),
                        static_cast<double>(rows) * (place < 0    ? 0.55
                                                     : place == 1 ? 0.3
                                                                  : 0.15),
                        1.0);
            next += part.count;
        }
        EXPECT_EQ(next, rows);
        EXPECT_EQ(rows_of_place(copies, 1, -1, rows).count, rows);
    }
}

/// One expert has half of all rows: no placement of whole experts is better than it, copies are.
TEST(ExpertCopies, LessThanTheHottestExpertAllows) {
    std::vector<i64> counts(16, 10);
    counts[3] = 150;
    const ExpertPlacement placement = contiguous_placement(16);
    const double hottest = 150.0 * 4 / 300;
    EXPECT_GT(rank_load_max_over_mean(placement, counts, 4), hottest);
    for (const auto& [places, most] : {std::pair{1, 1.0}, {2, 1.0}}) {
        const ExpertCopies copies = copies_by_load(placement, counts, 4, places);
        EXPECT_LE(rank_load_max_over_mean(placement, copies, counts, 4), most + 0.05) << places;
        const std::vector<i64> loads = loads_of_ranks(placement, copies, counts, 4);
        EXPECT_EQ(std::reduce(loads.begin(), loads.end()), 300);
    }
}

TEST(ExpertCopies, ZipfOnManyRanks) {
    const std::vector<i64> counts = zipf(64, 1e6);
    const ExpertPlacement placement = placement_by_load(contiguous_placement(64), counts, 16, 0);
    const i64 rows = std::reduce(counts.begin(), counts.end());
    const double hottest = 1e6 * 16 / static_cast<double>(rows);
    const double moved = rank_load_max_over_mean(placement, counts, 16);
    EXPECT_GE(moved, hottest);
    double last = moved;
    for (const i64 places : {1, 2, 4}) {
        const ExpertCopies copies = copies_by_load(placement, counts, 16, places);
        const double now = rank_load_max_over_mean(placement, copies, counts, 16);
        EXPECT_LE(now, last + 1e-9);
        EXPECT_LT(now, hottest);
        last = now;
        RecordProperty(
            fmt::format("places_{}", places),
            fmt::format("hottest expert {:.2f}, moved {:.2f}, copied {:.2f}", hottest, moved, now));
    }
    EXPECT_LT(last, 1.02);
}

TEST(ExpertCopies, NothingToGainNothingCopied) {
    EXPECT_FALSE(copies_by_load(contiguous_placement(8), std::vector<i64>(8, 5), 4, 2).any());
    EXPECT_FALSE(copies_by_load(contiguous_placement(8), std::vector<i64>(8, 0), 4, 2).any());
    EXPECT_FALSE(copies_by_load(contiguous_placement(8), zipf(8, 1000), 4, 0).any());
}

/// A rank never holds an expert twice, and a copy is elsewhere than its expert.
TEST(ExpertCopies, CopiesAreElsewhere) {
    std::vector<i64> counts = zipf(24, 5000);
    for (int turn = 0; turn < 50; ++turn) {
        std::rotate(counts.begin(), counts.begin() + 5, counts.end());
        const ExpertCopies copies = copies_by_load(contiguous_placement(24), counts, 6, 3);
        for (i64 rank = 0; rank < 6; ++rank) {
            std::vector<i32> held;
            for (i64 place = rank * 3; place < rank * 3 + 3; ++place) {
                const ExpertCopies::Place one = copies.places[static_cast<std::size_t>(place)];
                if (one.expert < 0) continue;
                EXPECT_NE(one.expert / 4, rank);
                EXPECT_GT(one.share, 0);
                EXPECT_LE(one.share, copies.whole[static_cast<std::size_t>(one.expert)]);
                held.push_back(one.expert);
            }
            std::ranges::sort(held);
            EXPECT_EQ(std::ranges::adjacent_find(held), held.end());
        }
    }
}

}  // namespace
}  // namespace moesaic
