// What a rank saw of an exchange against the oracle, in GoogleTest's words.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/exchange_bench.h"

namespace moesaic {

/// Equal, or with a tolerance so large relative to 1 or to the number.
inline void expect_numbers(const std::vector<double>& seen, const std::vector<double>& expected,
                           double tolerance) {
    ASSERT_EQ(seen.size(), expected.size());
    for (std::size_t i = 0; i < seen.size(); ++i) {
        EXPECT_LE(std::abs(seen[i] - expected[i]), tolerance * (1 + std::abs(expected[i])))
            << "at " << i << ": " << seen[i] << " for " << expected[i];
    }
}

/// Rows and their gradients to the last bit; sums over choices to `tolerance`. The oracle adds up products of
/// rows in another order than d_weight is.
inline void expect_oracle(const ExchangeSeen& seen, const RoutingCase& routing, i64 rank, i64 capacity,
                          double tolerance) {
    const ExchangeSeen expected = oracle(routing, rank);
    EXPECT_EQ(seen.rows, expected.rows);
    EXPECT_EQ(seen.d_results, expected.d_results);
    expect_numbers(seen.y, expected.y, tolerance);
    expect_numbers(seen.dx, expected.dx, tolerance);
    expect_numbers(seen.d_weight, expected.d_weight, 1e-13);
    for (const i64 received : seen.received) EXPECT_LE(received, capacity);
}

}  // namespace moesaic
