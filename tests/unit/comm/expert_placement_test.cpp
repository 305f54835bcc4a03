// Where experts lie, and how loads are made even: by hand, and what holds whatever the loads.
#include "comm/expert_placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "comm/traffic/traffic.h"
#include "runtime/base/philox.h"

namespace moesaic {
namespace {

using testing::ElementsAre;

TEST(ExpertPlacement, NamesPositionsAndExperts) {
    const ExpertPlacement placement({2, 0, 3, 1});
    EXPECT_THAT(placement.position_of, ElementsAre(1, 3, 0, 2));
    EXPECT_THAT(contiguous_placement(3).expert_at, ElementsAre(0, 1, 2));
    EXPECT_THAT(loads_of_ranks(placement, std::vector<i64>{1, 10, 100, 1000}, 2), ElementsAre(101, 1010));
    EXPECT_DOUBLE_EQ(rank_load_max_over_mean(placement, std::vector<i64>{1, 10, 100, 1000}, 2),
                     2020.0 / 1111);
    EXPECT_EQ(rank_load_max_over_mean(placement, std::vector<i64>{0, 0, 0, 0}, 2), 1);
}

TEST(ExpertPlacement, PermutesBySeedAndLayer) {
    std::set<std::vector<i32>> seen;
    for (const u64 seed : {u64{0}, u64{1}}) {
        for (const int layer : {0, 1}) {
            const ExpertPlacement placement = permuted_placement(16, seed, layer);
            EXPECT_EQ(placement, permuted_placement(16, seed, layer));
            std::vector<i32> sorted = placement.expert_at;
            std::ranges::sort(sorted);
            EXPECT_EQ(sorted, contiguous_placement(16).expert_at);
            seen.insert(placement.expert_at);
        }
    }
    EXPECT_EQ(seen.size(), 4U);
    // Every expert comes everywhere about as often: 4800 draws, 4 places, standard deviation 30.
    std::vector<i64> first(4, 0);
    for (u64 seed = 0; seed < 4800; ++seed)
        ++first[static_cast<std::size_t>(permuted_placement(4, seed, 0).position_of[0])];
    for (const i64 times : first) EXPECT_NEAR(static_cast<double>(times), 1200, 150);
}

ExpertPlacement by_load(const ExpertPlacement& now, const std::vector<i64>& counts, int ranks,
                        double least_gain = 0) {
    return placement_by_load(now, counts, ranks, least_gain);
}

TEST(PlacementByLoad, PutsTheLongestFirst) {
    // 9 and 8 part, 5 joins 8, 4 is left for 9.
    const ExpertPlacement next = by_load(contiguous_placement(4), {9, 8, 5, 4}, 2);
    EXPECT_THAT(next.expert_at, ElementsAre(0, 3, 2, 1));
    EXPECT_THAT(loads_of_ranks(next, std::vector<i64>{9, 8, 5, 4}, 2), ElementsAre(13, 13));
}

/// The rank of the largest is full after two, however empty it is.
TEST(PlacementByLoad, KeepsAsManyExpertsOnEveryRank) {
    const std::vector<i64> counts{1, 1, 100, 1, 60, 50};
    const ExpertPlacement next = by_load(contiguous_placement(6), counts, 2);
    EXPECT_EQ(std::ranges::max(loads_of_ranks(next, counts, 2)), 111);
    EXPECT_EQ(next.expert_at.size(), 6U);
}

TEST(PlacementByLoad, LeavesExpertsWhereTheyAreOnTies) {
    const ExpertPlacement now({3, 1, 0, 2});
    EXPECT_EQ(by_load(now, {5, 5, 5, 5}, 2), now);
    EXPECT_EQ(by_load(now, {0, 0, 0, 0}, 2), now);
    // As even already, though the greedy rule would pair others: nothing to gain.
    EXPECT_EQ(by_load(contiguous_placement(4), {3, 1, 2, 2}, 2), contiguous_placement(4));
    // One exchange is enough, and the others keep their local index.
    const ExpertPlacement next = by_load(contiguous_placement(8), {90, 80, 10, 10, 20, 20, 10, 10}, 2);
    i64 moved = 0;
    for (std::size_t expert = 0; expert < 8; ++expert) {
        const i32 before = static_cast<i32>(expert), after = next.position_of[expert];
        moved += before / 4 != after / 4;
        EXPECT_TRUE(before / 4 != after / 4 || before == after) << expert;
    }
    EXPECT_LE(moved, 4);
    EXPECT_EQ(std::ranges::max(loads_of_ranks(next, std::vector<i64>{90, 80, 10, 10, 20, 20, 10, 10}, 2)),
              130);
}

TEST(PlacementByLoad, MovesForTheLeastGainOnly) {
    const std::vector<i64> counts{60, 50, 40, 50};  // 110 and 90 -> 100 and 100: a gain of 1/11
    const ExpertPlacement now = contiguous_placement(4);
    EXPECT_EQ(by_load(now, counts, 2, 0.10), now);
    EXPECT_NE(by_load(now, counts, 2, 0.09), now);
}

/// Never worse than before, a permutation, stable, and near the bound whatever the loads.
TEST(PlacementByLoad, IsNeverWorse) {
    const Philox random(3, "loads");
    u64 draw = 0;
    for (const auto& [experts, ranks] :
         {std::pair{8, 1}, {8, 2}, {8, 4}, {8, 8}, {12, 3}, {64, 4}, {64, 8}}) {
        for (int round = 0; round < 40; ++round) {
            std::vector<i64> counts(static_cast<std::size_t>(experts));
            for (i64& count : counts) {
                const double uniform = random.uniform(draw++);
                count = static_cast<i64>(1000 * std::pow(uniform, 1 + round % 8));
            }
            const ExpertPlacement now =
                round % 2 == 0 ? contiguous_placement(experts) : permuted_placement(experts, draw, 0);
            const ExpertPlacement next = by_load(now, counts, ranks);
            EXPECT_LE(std::ranges::max(loads_of_ranks(next, counts, ranks)),
                      std::ranges::max(loads_of_ranks(now, counts, ranks)));
            EXPECT_EQ(by_load(next, counts, ranks), next);
        }
    }
}

/// What the hottest expert allows: the mean, or that expert with the lightest beside it.
i64 least_possible(std::vector<i64> counts, int ranks) {
    std::ranges::sort(counts);
    const auto each = std::ssize(counts) / ranks;
    const i64 all = std::reduce(counts.begin(), counts.end());
    return std::max((all + ranks - 1) / ranks,
                    counts.back() + std::reduce(counts.begin(), counts.begin() + each - 1));
}

TEST(PlacementByLoad, MakesZipfTrafficAsEvenAsTheHottestExpertAllows) {
    constexpr int kExperts = 64;
    constexpr i64 kTokens = 4096, kChoices = 8;
    for (const int ranks : {2, 4, 8, 16}) {
        for (const int layer : {0, 1, 2}) {
            const auto traffic = make_traffic("zipf:1.0", {.experts = kExperts, .top_k = kChoices});
            std::vector<i32> chosen(static_cast<std::size_t>(kTokens * kChoices));
            traffic->route(1, layer, 0, kTokens, chosen);
            std::vector<i64> counts(kExperts, 0);
            for (const i32 expert : chosen) ++counts[static_cast<std::size_t>(expert)];
            const ExpertPlacement now = contiguous_placement(kExperts);
            const ExpertPlacement next = by_load(now, counts, ranks, 0.05);
            const auto worst = static_cast<double>(std::ranges::max(loads_of_ranks(next, counts, ranks)));
            const auto least = static_cast<double>(least_possible(counts, ranks));
            EXPECT_LE(worst, 1.05 * least) << ranks << " ranks, layer " << layer;
            RecordProperty(
                fmt::format("ranks_{}_layer_{}", ranks, layer),
                fmt::format("{:.3f} -> {:.3f}, least {:.3f}", rank_load_max_over_mean(now, counts, ranks),
                            rank_load_max_over_mean(next, counts, ranks),
                            least * ranks / static_cast<double>(kTokens * kChoices)));
        }
    }
}

}  // namespace
}  // namespace moesaic
