// Means, quantiles, ranks, and the t distribution: small pure functions on lists of numbers.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

[[nodiscard]] double mean_of(std::span<const double> values);
/// Square root of the sum of squared deviations over n - 1; 0 for fewer than two values.
[[nodiscard]] double deviation_of(std::span<const double> values);
/// Linear between order statistics at (n - 1) q (Hyndman and Fan 1996, type 7). Asserts that there is a
/// value.
[[nodiscard]] double quantile_of(std::vector<double> values, double q);

/// 1 for the smallest; equal values share the mean of their ranks.
[[nodiscard]] std::vector<double> ranks_of(std::span<const double> values);
/// Pearson's correlation of the ranks; NaN where one of the lists is constant or shorter than two.
[[nodiscard]] double spearman(std::span<const double> left, std::span<const double> right);
/// Chance of a correlation of ranks at least as high were all pairings equally likely, one-sided: exact up to
/// 8 pairs, of 100000 random pairings beyond.
[[nodiscard]] double spearman_chance(std::span<const double> left, std::span<const double> right);

/// I_x(a, b), by the continued fraction of Lentz; relative error below 1e-12.
[[nodiscard]] double incomplete_beta(double x, double a, double b);
/// P(T <= t) of Student's distribution; any positive degrees of freedom.
[[nodiscard]] double student_cdf(double t, double degrees);
/// Its inverse, by bisection.
[[nodiscard]] double student_quantile(double probability, double degrees);

/// Mean of paired differences with everything one wants to say about it.
struct PairedTest {
    i64 pairs = 0;
    double difference = 0;     ///< mean of first - second
    double low = 0, high = 0;  ///< interval of level 1 - alpha
    double p = 1;              ///< two-sided
    double smallest_detectable =
        0;  ///< difference found with chance 0.8 at this scatter: (t_{1-alpha/2} + t_{0.8}) s.e.
};
/// Student's t on the differences, pairs - 1 degrees of freedom; p = 1 and an infinite interval for one pair.
[[nodiscard]] PairedTest paired_test(std::span<const double> first, std::span<const double> second,
                                     double alpha);

}  // namespace moesaic
