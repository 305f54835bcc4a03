// Element-wise operations over flat memory.
#pragma once

#include "runtime/cpu/range.h"
#include "runtime/fold_rounding.h"
#include "runtime/tensor.h"

namespace moesaic::cpu {

// Elements [first, last) of each operand; the caller has checked shapes and types. Reals but for the first
// two.
void copy(ConstTensorView from, TensorView to, Range elements);
void zero(TensorView y, Range elements);
void add(ConstTensorView x, TensorView y, Range elements);  ///< y += x
void fold(TensorView part, TensorView sum, Range elements, const FoldRounding& rounding);
void convert(ConstTensorView from, TensorView to, Range elements);  ///< to = from, rounded once
void scale(double factor, TensorView y, Range elements);            ///< y *= factor
/// y = min(max(y, -limit), limit); NaN stays.
void clamp(double limit, TensorView y, Range elements);
/// dy = 0 where |y| >= limit.
void clamp_grad(double limit, ConstTensorView y, TensorView dy, Range elements);

/// Rows of floats beside rows of bf16, each kind its stride apart.
struct RowBlock {
    i64 rows = 0, columns = 0, wide_stride = 0, narrow_stride = 0;
};
void widen_rows(const RowBlock& block, const BFloat16* from, float* to);
void round_rows(const RowBlock& block, const float* from, BFloat16* to);  ///< to nearest even

}  // namespace moesaic::cpu
