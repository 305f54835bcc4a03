// Changes of fixed units from look to look, against numbers worked out by hand and by the plain formula.
#include "runtime/metrics/paired_change.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "runtime/base/philox.h"

namespace moesaic {
namespace {

TEST(PairedChange, QuantilesOfTheNormalLaw) {
    EXPECT_NEAR(two_sided_quantile(0.05), 1.959963984540054, 1e-12);
    EXPECT_NEAR(two_sided_quantile(0.01), 2.575829303548901, 1e-12);
}

TEST(PairedChange, DifferenceOfMeans) {
    const std::vector<double> a{1, 2, 3, 6}, b{1, 1, 4};  // variances 14/3 and 3
    const IntervalRecord difference = mean_difference(a, b, 0.05);
    EXPECT_DOUBLE_EQ(difference.value, 1);
    EXPECT_NEAR(difference.high - 1, 1.959963984540054 * std::sqrt(14.0 / 12 + 1), 1e-9);
    EXPECT_NEAR(1 - difference.low, difference.high - 1, 1e-12);
    EXPECT_DOUBLE_EQ(mean_difference(a, {}, 0.05).value, 3);
    EXPECT_TRUE(std::isinf(mean_difference(std::vector{1.0}, b, 0.05).high)) << "one unit says nothing";
}

TEST(PairedChange, PairsUnitsSoThatTheirLevelsDoNotCount) {
    const Philox random(1, "levels");
    LossHistory history(3);
    // Levels differ by hundreds; held-out units fall by 0.1 a look, seen ones by 0.3.
    for (int look = 0; look < 5; ++look) {
        std::vector<double> heldout, seen;
        for (u64 i = 0; i < 40; ++i) {
            const double noise = 0.01 * random.normal(1000 + 40 * static_cast<u64>(look) + i);
            heldout.push_back(100 * random.normal(i) - 0.1 * look + noise);
            seen.push_back(100 * random.normal(i + 500) - 0.3 * look - noise);
        }
        history.add(heldout, seen);
        EXPECT_EQ(history.gap_change(0.05).has_value(), look > 0);
        EXPECT_EQ(history.gap_rise(0.05).has_value(), look >= 2) << "a full history";
    }
    EXPECT_NEAR(history.heldout_change(0.05)->value, -0.1, 0.01);
    EXPECT_LT(history.heldout_change(0.05)->high, -0.09);
    EXPECT_NEAR(history.gap_change(0.05)->value, 0.2, 0.01);
    EXPECT_NEAR(history.gap_rise(0.05)->value, 0.4, 0.01) << "from the first to the last of three looks";
    EXPECT_GT(history.gap_rise(0.05)->low, 0.38);
    EXPECT_DEATH(history.add(std::vector{1.0}, std::vector{1.0}), "not those of the evaluation before");
}

}  // namespace
}  // namespace moesaic
