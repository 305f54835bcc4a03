// Comparison with an oracle: relative, as far as the oracle's printed digits go.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

namespace moesaic {

/// |actual - expected| <= tolerance |expected|; an expected 0 must be met exactly.
inline void expect_close(double actual, double expected, double tolerance = 1e-9) {
    EXPECT_LE(std::abs(actual - expected), tolerance * std::abs(expected))
        << "actual " << actual << " expected " << expected;
}

}  // namespace moesaic
