// The update of parameters by AdamW, and the sums of squares that the gradient's norm is made of.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void adamw(const AdamW& operation, Range elements);
/// `blocks` counts blocks of `block` elements; the last one may be short.
void block_sum_squares(ConstTensorView values, i64 block, TensorView sums, Range blocks);

}  // namespace moesaic::cpu
