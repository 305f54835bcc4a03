// Sums of signed features against theorem 2's own function, and against the expectation in closed form.
#include "runtime/metrics/sign_sums.h"

#include <gtest/gtest.h>

#include <cmath>

#include "runtime/metrics/bounds/frozen_features.h"

namespace moesaic {
namespace {

constexpr i64 kWidth = 6, kUnits = 40;

std::vector<std::vector<float>> features_of(i64 count) {
    const Philox random(2, "features");
    std::vector<std::vector<float>> features(static_cast<std::size_t>(count));
    u64 next = 0;
    for (auto& one : features) {
        for (i64 f = 0; f < kWidth; ++f) one.push_back(static_cast<float>(random.normal(next++)));
    }
    return features;
}

TEST(SignSums, OfSingleTargetsAreTheoremTwoWithOneExpert) {
    constexpr int kOutputs = 3;
    SignSums sums(kWidth, kOutputs, 9), rest(kWidth, kOutputs, 9);
    const auto rows = features_of(kUnits);
    for (i64 i = 0; i < kUnits; ++i) (i < 25 ? sums : rest).add(i, 0, 1, rows[static_cast<std::size_t>(i)]);
    for (std::size_t i = 0; i < sums.sums().size(); ++i) sums.sums()[i] += rest.sums()[i];

    std::vector<double> features, signs;
    for (const auto& row : rows) features.insert(features.end(), row.begin(), row.end());
    for (i64 draw = 0; draw < SignSums::kDraws; ++draw) {
        for (i64 i = 0; i < kUnits; ++i) {
            for (i64 column = 0; column < kOutputs; ++column) signs.push_back(sums.sign(i, 0, draw, column));
        }
    }
    const std::vector<int> experts(static_cast<std::size_t>(kUnits), 0);
    const std::vector<double> weights(static_cast<std::size_t>(kUnits), 1);
    const RoutedFeatures data{features, experts, weights, static_cast<int>(kWidth), 1, 1};
    EXPECT_NEAR(sums.complexity(2.5, kUnits), last_layer_complexity(data, signs, kOutputs, 2.5), 1e-12);
}

TEST(SignSums, OfUnitsOfManyTargetsAreNearTheirExpectation) {
    // sqrt((K-1) sum_it |phi_it|^2 / l_i) / n, which the mean of norms stays a little below.
    constexpr i64 kOutputs = 255;
    SignSums sums(kWidth, kOutputs, 9);
    const auto rows = features_of(4 * kUnits);
    double squares = 0, signs = 0;
    for (i64 i = 0; i < kUnits; ++i) {
        const i64 targets = i % 4 + 1;
        for (i64 t = 0; t < targets; ++t) {
            const auto& row = rows[static_cast<std::size_t>(4 * i + t)];
            sums.add(i, t, static_cast<double>(targets), row);
            for (const double value : row) squares += value * value / static_cast<double>(targets);
            for (i64 draw = 0; draw < SignSums::kDraws; ++draw) signs += sums.sign(i, t, draw, 5);
        }
    }
    const double expected = std::sqrt(kOutputs * squares) / kUnits;
    EXPECT_NEAR(sums.complexity(1, kUnits), expected, 0.06 * expected);
    EXPECT_LT(std::abs(signs), 4 * std::sqrt(100.0 * SignSums::kDraws)) << "signs are fair";
}

}  // namespace
}  // namespace moesaic
