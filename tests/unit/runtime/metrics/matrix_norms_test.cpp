// Norms of matrices whose norms are known.
#include "runtime/metrics/matrix_norms.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "runtime/base/philox.h"

namespace moesaic {
namespace {

TEST(MatrixNorms, OfADiagonal) {
    const MatrixNorms norms = matrix_norms(std::vector<float>{3, 0, 0, 1, 0, 0}, 3, 2, "diagonal");
    EXPECT_DOUBLE_EQ(norms.frobenius, std::sqrt(10.0));
    EXPECT_NEAR(norms.spectral, 3, 1e-6);
    EXPECT_DOUBLE_EQ(norms.row_sum, 4);
    EXPECT_DOUBLE_EQ(norms.largest_row, 3);
}

TEST(MatrixNorms, SpectralOfRankOneIsFrobenius) {
    const Philox random(1, "rank one");
    std::vector<float> weights;
    for (u64 row = 0; row < 13; ++row) {
        for (u64 column = 0; column < 29; ++column)
            weights.push_back(static_cast<float>(random.normal(row) * random.normal(100 + column)));
    }
    const MatrixNorms norms = matrix_norms(weights, 13, 29, "rank one");
    EXPECT_NEAR(norms.spectral, norms.frobenius, 1e-5 * norms.frobenius);
}

/// sigma of a random matrix by 2000 iterations in f64: the estimate is no larger, and within a few per cent.
TEST(MatrixNorms, SpectralIsALowerEstimate) {
    constexpr i64 kRows = 48, kColumns = 32;
    const Philox random(2, "matrix");
    std::vector<float> weights;
    for (u64 i = 0; i < kRows * kColumns; ++i) weights.push_back(static_cast<float>(random.normal(i)));
    std::vector<double> right(kColumns, 1.0);
    double exact = 0;
    for (int iteration = 0; iteration < 2000; ++iteration) {
        std::vector<double> left(kRows, 0.0), next(kColumns, 0.0);
        for (std::size_t row = 0; row < left.size(); ++row) {
            for (std::size_t column = 0; column < next.size(); ++column)
                left[row] += static_cast<double>(weights[row * kColumns + column]) * right[column];
            for (std::size_t column = 0; column < next.size(); ++column)
                next[column] += static_cast<double>(weights[row * kColumns + column]) * left[row];
        }
        double length = 0;
        for (const double value : next) length += value * value;
        exact = std::sqrt(std::sqrt(length));
        for (std::size_t column = 0; column < next.size(); ++column)
            right[column] = next[column] / std::sqrt(length);
    }
    const double estimate = matrix_norms(weights, kRows, kColumns, "matrix").spectral;
    EXPECT_LE(estimate, exact * (1 + 1e-5));
    EXPECT_GT(estimate, 0.97 * exact);
}

TEST(MatrixNorms, OfZeros) {
    EXPECT_EQ(matrix_norms(std::vector<float>(6, 0.0F), 2, 3, "zeros"), MatrixNorms{});
}

TEST(MatrixNorms, PathNormByHand) {
    // down [2,3] has columns of norms 5, 1, 2; up [3,2] has rows of norms 1, 2, 5.
    const std::vector<float> down{3, 1, 0, 4, 0, 2}, up{1, 0, 0, 2, 3, 4};
    EXPECT_DOUBLE_EQ(path_norm(down, up, 3), 5 * 1 + 1 * 2 + 2 * 5);
}

}  // namespace
}  // namespace moesaic
