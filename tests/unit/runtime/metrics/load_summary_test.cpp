// The numbers that say how even a load is, against values worked out by hand.
#include "runtime/metrics/load_summary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace moesaic {
namespace {

LoadSummary summary(const std::vector<i64>& load, i64 top_k) {
    return summarize_load(load, top_k);
}

TEST(LoadSummary, OfAnEvenLoad) {
    const LoadSummary even = summary({6, 6, 6, 6}, 2);
    EXPECT_DOUBLE_EQ(even.entropy, std::log(4));
    EXPECT_DOUBLE_EQ(even.evenness, 1);
    EXPECT_DOUBLE_EQ(even.max_over_mean, 1);
    EXPECT_DOUBLE_EQ(even.variation, 0);
    EXPECT_EQ(even.dead, 0);
}

/// Whatever k is, all tokens on the same k experts are evenness 0.
TEST(LoadSummary, OfACollapsedRouter) {
    for (const i64 top_k : {1, 2, 3}) {
        std::vector<i64> load(8, 0);
        for (i64 expert = 0; expert < top_k; ++expert) load[static_cast<std::size_t>(expert) + 3] = 20;
        const LoadSummary collapsed = summary(load, top_k);
        EXPECT_NEAR(collapsed.entropy, std::log(static_cast<double>(top_k)), 1e-15);
        EXPECT_NEAR(collapsed.evenness, 0, 1e-15);
        EXPECT_DOUBLE_EQ(collapsed.max_over_mean, 8.0 / static_cast<double>(top_k));
        EXPECT_EQ(collapsed.dead, 8 - top_k);
        EXPECT_EQ(collapsed.busiest, 3);
    }
}

TEST(LoadSummary, OfAnUnevenLoad) {
    const LoadSummary uneven = summary({1, 0, 3, 4}, 1);  // mean 2, deviations 1 2 1 2
    EXPECT_DOUBLE_EQ(uneven.max_over_mean, 2);
    EXPECT_DOUBLE_EQ(uneven.variation, std::sqrt(10.0 / 4) / 2);
    EXPECT_DOUBLE_EQ(uneven.entropy,
                     -(0.125 * std::log(0.125) + 0.375 * std::log(0.375) + 0.5 * std::log(0.5)));
    EXPECT_DOUBLE_EQ(uneven.evenness, uneven.entropy / std::log(4));
    EXPECT_EQ(uneven.dead, 1);
    EXPECT_EQ(uneven.busiest, 3);
}

/// Nothing to divide by: no tokens, one expert, every token in every expert.
TEST(LoadSummary, OfDegenerateLoads) {
    EXPECT_EQ(summary({0, 0, 0}, 1).dead, 3);
    EXPECT_DOUBLE_EQ(summary({0, 0, 0}, 1).max_over_mean, 1);
    EXPECT_DOUBLE_EQ(summary({0, 0, 0}, 1).evenness, 1);
    EXPECT_DOUBLE_EQ(summary({9}, 1).evenness, 1);
    EXPECT_DOUBLE_EQ(summary({5, 5}, 2).evenness, 1);
    EXPECT_DOUBLE_EQ(summary({5, 5}, 7).evenness, 1);
    EXPECT_EQ(summary({}, 1).dead, 0);
}

}  // namespace
}  // namespace moesaic
