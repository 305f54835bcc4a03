// The operands of one line of `bench gemm`, and what its result has to be.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "launch/bench/gemm_bench.h"
#include "runtime/backend.h"

namespace moesaic {

class GemmProblem {
  public:
    GemmProblem(Backend& backend, Stream& stream, const GemmSize& size, DType dtype);

    /// Enqueues the product.
    void run();
    /// Values of the last result that are off by more than rounding: 2e-5 (fp32), 1e-2 (bf16) or 1e-12 (fp64)
    /// of 1 + |value|; of runs + |value| in sums that every run adds to. All are compared where that takes at
    /// most 2^26 multiplications, else all columns of 16 rows and all rows of 16 columns. To be called once:
    /// sums are added to.
    [[nodiscard]] i64 count_wrong() const;
    [[nodiscard]] double flops() const;
    [[nodiscard]] TensorView result() { return c_; }

  private:
    [[nodiscard]] bool sums_over_rows() const { return size_.layout == "TN"; }
    [[nodiscard]] i64 groups() const { return std::max<i64>(size_.groups, 1); }
    /// <row i of op(a), column j of op(b)> of a group whose rows begin at `first`.
    [[nodiscard]] double value(i64 group, i64 first, i64 inner, i64 row, i64 column) const;
    void allocate(DType dtype);
    void pack_weight();

    Backend& backend_;
    Stream& stream_;
    GemmSize size_;
    std::vector<i64> rows_;  // of each group: of m, for TN of k
    Tensor a_, b_, c_, copy_;
    std::vector<double> a_values_, b_values_;
    i64 runs_ = 0;
};

}  // namespace moesaic
