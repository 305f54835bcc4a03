// Sums down the columns of a matrix, for .cu files: a block adds up a few neighbouring columns.
#pragma once

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

/// The sum of value_at(row) over [first, last), where a thread is to read column thread % kColumnsOfBlock; in
/// the first kColumnsOfBlock threads. Every 32nd row by one thread in ascending order, then a tree of fixed
/// shape. To be called once in a kernel.
template <class Value>
__device__ inline double sum_down_columns(i64 first, i64 last, const ThreadBlock& block,
                                          const Value& value_at) {
    GPU_SHARED(double, of_warp, kBlockWarps* kColumnsOfBlock);
    double sum = 0;
    for (i64 row = first + block.thread / kColumnsOfBlock; row < last; row += kBlockThreads / kColumnsOfBlock)
        sum += value_at(row);
    for (int distance = 16; distance >= kColumnsOfBlock; distance /= 2)
        sum += __shfl_xor_sync(Warp::kAll, sum, distance);
    const int column = block.thread % kColumnsOfBlock;
    if (block.thread % 32 < kColumnsOfBlock) of_warp[block.warp_number() * kColumnsOfBlock + column] = sum;
    block.sync();
    double total = 0;
    for (int i = 0; i < kBlockWarps && block.thread < kColumnsOfBlock; ++i)
        total += of_warp[i * kColumnsOfBlock + column];
    return total;
}

}  // namespace moesaic::kernels
