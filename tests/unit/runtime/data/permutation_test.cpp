// KeyedPermutation is a bijection that depends on its key, evenly over all orders.
#include "runtime/data/permutation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

namespace moesaic {
namespace {

std::vector<i64> order_of(i64 n, u64 seed, const std::string& name) {
    const KeyedPermutation permutation(n, seed, name);
    std::vector<i64> order;
    for (i64 position = 0; position < n; ++position) order.push_back(permutation(position));
    return order;
}

TEST(KeyedPermutation, IsABijection) {
    for (const i64 n : {1, 2, 3, 4, 5, 16, 17, 64, 65, 1000, 4097}) {
        for (const u64 seed : {0u, 1u, 77u}) {
            std::vector<i64> order = order_of(n, seed, "epoch 0");
            std::sort(order.begin(), order.end());
            for (i64 i = 0; i < n; ++i) ASSERT_EQ(order[static_cast<std::size_t>(i)], i) << "n " << n;
        }
    }
}

TEST(KeyedPermutation, FindsThePositionOfAnElement) {
    for (const i64 n : {1, 2, 3, 5, 16, 65, 1000, 4097}) {
        for (const u64 seed : {0u, 1u, 77u}) {
            const KeyedPermutation permutation(n, seed, "epoch 0");
            for (i64 position = 0; position < n; ++position)
                ASSERT_EQ(permutation.position_of(permutation(position)), position) << "n " << n;
        }
    }
}

TEST(KeyedPermutation, DependsOnSeedAndName) {
    for (const i64 n : {64, 1000, 4097}) {
        const auto order = order_of(n, 1, "epoch 0");
        EXPECT_EQ(order, order_of(n, 1, "epoch 0"));
        EXPECT_NE(order, order_of(n, 2, "epoch 0"));
        EXPECT_NE(order, order_of(n, 1, "epoch 1"));
    }
}

TEST(KeyedPermutation, StaysInRangeForLargeSizes) {
    for (const i64 n : {(i64{1} << 32) + 1, (i64{1} << 40) - 1, (i64{1} << 62) - 1}) {
        const KeyedPermutation permutation(n, 3, "large");
        i64 least = n;
        i64 greatest = 0;
        for (i64 i = 0; i < 1000; ++i) {
            const i64 value = permutation(n - 1 - i);
            ASSERT_TRUE(0 <= value && value < n) << value;
            least = std::min(least, value);
            greatest = std::max(greatest, value);
        }
        EXPECT_LT(least, n / 50);  // chance of failure: 0.98^1000
        EXPECT_GT(greatest, n - n / 50);
    }
}

TEST(KeyedPermutation, ReachesAllOrdersOfFewElementsEvenly) {
    for (const i64 n : {3, 4, 5}) {
        const i64 orders = n == 3 ? 6 : n == 4 ? 24 : 120;
        const i64 draws = 400 * orders;
        std::map<std::vector<i64>, i64> counts;
        for (i64 i = 0; i < draws; ++i) ++counts[order_of(n, 5, "epoch " + std::to_string(i))];
        ASSERT_EQ(static_cast<i64>(counts.size()), orders) << "n " << n;
        double chi_squared = 0;
        for (const auto& [order, count] : counts) {
            chi_squared += static_cast<double>((count - 400) * (count - 400)) / 400.0;
        }
        // Mean orders - 1, variance twice that: five standard deviations.
        const double freedom = static_cast<double>(orders - 1);
        EXPECT_LT(chi_squared, freedom + 5 * std::sqrt(2 * freedom)) << "n " << n;
    }
}

}  // namespace
}  // namespace moesaic
