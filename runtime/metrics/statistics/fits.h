// Fits with intervals: linear least squares, and a slope whose interval comes from drawing cells anew.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

struct LinearFit {
    std::vector<double> coefficients, errors;  ///< standard errors, from the residuals
    double residual = 0;                       ///< root of the residual sum of squares over n - p
};
/// Minimises sum weight (y - x·c)^2 by Householder's QR. Empty where there are fewer rows than columns, or
/// the columns depend on each other (to 1e-10).
[[nodiscard]] std::optional<LinearFit> least_squares(const std::vector<std::vector<double>>& rows,
                                                     std::span<const double> y,
                                                     std::span<const double> weights = {});

/// A configuration: its place on the axes, and what its runs (seeds) measured.
struct Cell {
    std::vector<double> x;
    std::vector<double> y;
};

struct SlopeFit {
    std::vector<double> slope, low, high;  ///< by axis; the interval of level 1 - alpha
    double intercept = 0;
    i64 cells = 0, left_out = 0;  ///< runs left out because a logarithm of them does not exist
};
/// ln y = intercept + slope · ln x over all runs of all cells. Intervals: percentiles of `draws` fits to
/// cells drawn with replacement, and runs within each cell drawn likewise (runs of a cell share what its
/// configuration does to them); drawn from a generator keyed by `seed`. Empty where the axes cannot be told
/// apart, or cells are fewer than axes + 2.
[[nodiscard]] std::optional<SlopeFit> log_log_slope(const std::vector<Cell>& cells, double alpha, i64 draws,
                                                    u64 seed);

/// Least sum of soft_l1(residual^2), rho(z) = 2 (sqrt(1 + z) - 1), from `start`: Levenberg and Marquardt on
/// reweighted residuals, derivatives by differences.
[[nodiscard]] std::vector<double> robust_least_squares(
    const std::function<std::vector<double>(const std::vector<double>&)>& residuals,
    std::vector<double> start);

}  // namespace moesaic
