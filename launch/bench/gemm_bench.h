// moesaic bench gemm: single and grouped products, each as a share of what the machine can compute.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/bench/bench_options.h"

namespace moesaic {

/// Every combination of the lists is a line; where all of m, n, k and groups are empty, a table of its own.
struct GemmOptions : BenchOptions {
    std::vector<i64> m, n, k, groups;
    std::vector<std::string> layouts;  ///< NN, NT, TN; empty: all
    std::string packed = "both";       ///< yes, no or both, where b is a weight
    std::string against;               ///< "onednn": its fp32 product beside ours, in turn; empty: nothing
    std::optional<double> min_peak_fraction, min_ratio;
};

/// One line: c [m,n] = op(a) · op(b) over k. TN sums over rows (a stored [k,m]), NT has b stored [n,k]. With
/// groups > 0 as many products with b (TN: c, in f64) of their own, m (TN: k) being the mean of rows.
struct GemmSize {
    std::string layout;
    i64 groups, m, n, k;
    bool packed;
};

/// Throws UserError with all mistakes.
void check_gemm_options(const GemmOptions& options);
[[nodiscard]] std::vector<GemmSize> gemm_sizes(const GemmOptions& options);
/// Rows of each group, `mean * groups` in all: as 1, 1/2, 1/3 ..., the last of three or more groups empty.
[[nodiscard]] std::vector<i64> uneven_rows(i64 groups, i64 mean);

/// Returns the exit code; 3 where a gate or a value does not hold.
int bench_gemm(const GemmOptions& options);

}  // namespace moesaic
