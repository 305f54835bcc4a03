// Routing operations on vectors worked by hand or published by other projects.
#include "runtime/cpu/routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

namespace moesaic::cpu {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Chosen {
    std::vector<i32> index;
    std::vector<float> value;
};

Chosen choose(const std::vector<float>& scores, i64 experts, i64 choices) {
    const i64 rows = static_cast<i64>(scores.size()) / experts;
    Chosen chosen{std::vector<i32>(static_cast<std::size_t>(rows * choices)),
                  std::vector<float>(static_cast<std::size_t>(rows * choices))};
    top_k({.scores = view_of(scores.data(), {rows, experts}),
           .index = view_of(chosen.index.data(), {rows, choices}),
           .value = view_of(chosen.value.data(), {rows, choices})},
          {0, rows});
    return chosen;
}

struct Grouped {
    std::vector<i32> order;
    std::vector<i64> counts;
};

Grouped group(const std::vector<i32>& key, i64 groups) {
    const auto positions = static_cast<i64>(key.size());
    Grouped grouped{std::vector<i32>(key.size(), -7), std::vector<i64>(static_cast<std::size_t>(groups))};
    group_by_key({.key = view_of(key.data(), {positions}),
                  .order = view_of(grouped.order.data(), {positions}),
                  .counts = view_of(grouped.counts.data(), {groups})});
    return grouped;
}

TEST(TopK, GivesTiesToTheLowerIndex) {
    EXPECT_THAT(choose({1, 1, 1, 1}, 4, 2).index, ElementsAre(0, 1));
    EXPECT_THAT(choose({1, 3, 2, 3, 2}, 5, 4).index, ElementsAre(1, 3, 2, 4));
}

TEST(TopK, PutsNanLast) {
    EXPECT_THAT(choose({kNan, 1, kNan, -2}, 4, 2).index, ElementsAre(1, 3));
    EXPECT_THAT(choose({2, kNan, -std::numeric_limits<float>::infinity(), kNan}, 4, 3).index,
                ElementsAre(0, 2, 1));
    const Chosen all_nan = choose({kNan, kNan, kNan}, 3, 2);
    EXPECT_THAT(all_nan.index, ElementsAre(0, 1));
    EXPECT_TRUE(std::isnan(all_nan.value[0]));
}

TEST(TopK, ReproducesDeepSpeedsNoDropVector) {
    const Chosen chosen = choose({.95f, .85f, .9f, .8f,  //
                                  .7f, .65f, .75f, .6f,  //
                                  .5f, .55f, .45f, .4f,  //
                                  .35f, .3f, .25f, .2f},
                                 4, 2);
    EXPECT_THAT(chosen.index, ElementsAre(0, 2, 2, 0, 1, 0, 0, 1));
    EXPECT_THAT(chosen.value, ElementsAre(.95f, .9f, .75f, .7f, .55f, .5f, .35f, .3f));
    const Grouped grouped = group(chosen.index, 4);
    EXPECT_THAT(grouped.counts, ElementsAre(4, 2, 2, 0));
    EXPECT_THAT(grouped.order, ElementsAre(0, 3, 5, 6, 4, 7, 1, 2));  // ascending tokens within an expert
}

TEST(GroupByKey, IsStableAndLeavesOutMinusOne) {
    const Grouped grouped = group({2, -1, 0, 2, -1, 0, 2}, 3);
    EXPECT_THAT(grouped.counts, ElementsAre(2, 0, 3));
    EXPECT_THAT(grouped.order, ElementsAre(2, 5, 0, 3, 6, -7, -7));
}

TEST(GroupByKey, AssertsOnAKeyOutOfRange) {
    EXPECT_DEATH(group({0, 3}, 3), "key 3 at 1, groups 3");
}

struct Reordering {
    std::vector<int> counts;  ///< rows of (rank, expert), rank by rank
    i64 experts;
    std::vector<i32> order;
    std::vector<i64> totals;
};

TEST(GroupByKey, ReordersRankMajorRowsAsTorchtitanDoes) {
    const std::vector<Reordering> vectors = {
        {{2, 3, 1, 4}, 2, {0, 1, 5, 2, 3, 4, 6, 7, 8, 9}, {3, 7}},
        {{0, 3, 2, 0}, 2, {3, 4, 0, 1, 2}, {2, 3}},
        {{2, 2, 2, 2, 2, 2}, 2, {0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11}, {6, 6}},
        {{0, 0, 0, 0}, 2, {}, {0, 0}},
        {{3, 1, 2}, 3, {0, 1, 2, 3, 4, 5}, {3, 1, 2}},  // one rank
        {{3, 1, 2}, 1, {0, 1, 2, 3, 4, 5}, {6}},        // one expert
    };
    for (const Reordering& vector : vectors) {
        std::vector<i32> key;
        for (std::size_t segment = 0; segment < vector.counts.size(); ++segment) {
            const auto expert = static_cast<i32>(static_cast<i64>(segment) % vector.experts);
            key.insert(key.end(), static_cast<std::size_t>(vector.counts[segment]), expert);
        }
        const Grouped grouped = group(key, vector.experts);
        EXPECT_THAT(grouped.order, ElementsAreArray(vector.order));
        EXPECT_THAT(grouped.counts, ElementsAreArray(vector.totals));
    }
}

TEST(GatherRows, MovesAnyElementType) {
    const std::vector<BFloat16> in = {{1}, {2}, {3}, {4}};
    const std::vector<i32> index = {1, -1, 0};
    std::vector<BFloat16> out(6, BFloat16{9});
    gather_rows({.in = view_of(in.data(), {2, 2}),
                 .index = view_of(index.data(), {3}),
                 .out = view_of(out.data(), {3, 2})},
                {0, 3});
    EXPECT_THAT(out,
                ElementsAre(BFloat16{3}, BFloat16{4}, BFloat16{0}, BFloat16{0}, BFloat16{1}, BFloat16{2}));
}

TEST(GatherRows, AssertsOnAnIndexOutOfRange) {
    const std::vector<float> in(4);
    const std::vector<i32> index = {2};
    std::vector<float> out(2);
    EXPECT_DEATH(gather_rows({.in = view_of(in.data(), {2, 2}),
                              .index = view_of(index.data(), {1}),
                              .out = view_of(out.data(), {1, 2})},
                             {0, 1}),
                 "index 2 of row 0, sources 2");
}

}  // namespace
}  // namespace moesaic::cpu
