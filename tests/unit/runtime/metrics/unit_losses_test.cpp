// Losses of a unit against their definitions, target by target.
#include "runtime/metrics/unit_losses.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace moesaic {
namespace {

constexpr double kMasked = std::numeric_limits<double>::infinity();

TEST(UnitLosses, AreMeansOverUnmaskedTargets) {
    const LossScales scales{16, 0.1, 2, 1.5};
    const std::vector<double> loss{0.5, 0, 3, 1}, margin{1, kMasked, -2, 0};
    const UnitScores unit = score_unit(loss, margin, scales);
    EXPECT_EQ(unit.targets, 3);
    EXPECT_DOUBLE_EQ(unit.of(UnitLoss::raw), 4.5 / 3);
    EXPECT_DOUBLE_EQ(unit.of(UnitLoss::error), 2.0 / 3) << "a tie is an error";
    EXPECT_DOUBLE_EQ(unit.of(UnitLoss::ramp), (0.5 + 1 + 1) / 3);
    EXPECT_DOUBLE_EQ(unit.of(UnitLoss::clipped), (0.5 + 1.5 + 1) / 3);
    double bits = 0;
    for (const double each : {0.5, 3.0, 1.0}) bits -= std::log2(0.9 * std::exp(-each) + 0.1 / 16) / 3;
    EXPECT_DOUBLE_EQ(unit.of(UnitLoss::smoothed_bits), bits);
    EXPECT_GE(unit.of(UnitLoss::ramp), unit.of(UnitLoss::error));
}

TEST(UnitLosses, BitsOfManyUnlikelyTargetsAreExact) {
    // Chances of 0, the least smoothing and the most answers: a product of them all would be no number.
    const LossScales scales{2147483647, 1e-6, 1, 11};
    std::vector<double> loss(77), margin(77, -1.0);
    double bits = 0;
    for (std::size_t i = 0; i < loss.size(); ++i) {
        loss[i] = i % 3 == 0 ? 1e6 : 0.25 * static_cast<double>(i);
        bits -= std::log2((1 - 1e-6) * std::exp(-loss[i]) + 1e-6 / 2147483647) / 77;
    }
    EXPECT_NEAR(score_unit(loss, margin, scales).of(UnitLoss::smoothed_bits), bits, 1e-12 * bits);
}

TEST(UnitLosses, LieInTheirRanges) {
    const LossScales scales{256, 0.1, 1, 11};
    // As good and as bad as can be.
    const UnitScores best = score_unit(std::vector{0.0}, std::vector{50.0}, scales);
    const UnitScores worst = score_unit(std::vector{1e6}, std::vector{-1e6}, scales);
    for (const UnitLoss loss :
         {UnitLoss::error, UnitLoss::ramp, UnitLoss::smoothed_bits, UnitLoss::clipped}) {
        EXPECT_NEAR(scales.to_unit(loss, best.of(loss)), 0, 1e-15) << name_of(loss);
        EXPECT_NEAR(scales.to_unit(loss, worst.of(loss)), 1, 1e-12) << name_of(loss);
        EXPECT_DOUBLE_EQ(scales.from_unit(loss, scales.to_unit(loss, 0.3)), 0.3) << name_of(loss);
    }
    EXPECT_TRUE(std::isinf(scales.range(UnitLoss::raw)));
}

TEST(UnitLosses, OfAUnitWithoutTargets) {
    const UnitScores unit = score_unit(std::vector{0.0, 0.0}, std::vector{kMasked, kMasked}, {});
    EXPECT_EQ(unit, UnitScores{});
    EXPECT_EQ(score_unit({}, {}, {}), UnitScores{});
}

}  // namespace
}  // namespace moesaic
