// Small kernels of the kinds that the back end has, each with defects that can be switched on: what the
// emulator, the memory checker and the interpreter of PTX have to report, so that they cannot rot.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace moesaic::defects {

enum class Defect : int {
    none,
    no_barrier_after_write,   ///< the block's sum is read before all have written their part
    no_barrier_before_reuse,  ///< the parts are overwritten while others read them
    lane_leaves_shuffles,
    barrier_in_branch,
    loop_left_early,
    counted_without_atomic,
    histogram_not_zeroed,
    no_barrier_at_loop_end,
    row_read_too_far,
    row_written_too_far,
    misaligned_load,
    no_sync_of_warp,
    tile_overwritten,
    summed_across_blocks,
    shared_array_overrun,
    output_not_written,
    in_device_branch,  ///< of what nvcc alone compiles
};

inline constexpr int kThreads = 128, kKeys = 8, kTile = 64;

/// y = x / sqrt(mean of squares) of every row, a block each; n columns.
void normalize(cudaStream_t stream, const float* x, float* y, int rows, int n, Defect defect);
/// The sum of every row, a warp each, 4 to a block.
void sum_rows(cudaStream_t stream, const float* x, float* sums, int rows, int n, Defect defect);
/// How often each of kKeys keys comes, by a histogram in shared memory and atomics. `counts` begins as zeros.
void count_keys(cudaStream_t stream, const int* keys, int* counts, int n, Defect defect);
/// Positions in the order of keys, equal ones in theirs; one block.
void sort_keys(cudaStream_t stream, const int* keys, int* order, int n, Defect defect);
/// to = from, [rows, n], a block each. Not all rows where they are not written.
void copy_rows(cudaStream_t stream, const float* from, float* to, int rows, int n, Defect defect);
/// y = 2 x, four elements a thread; n is a multiple of 4.
void double_all(cudaStream_t stream, const float* x, float* y, int n, Defect defect);
/// y[i] = sum over j of x[i] x[j], tiles of x in shared memory; one block; n is a multiple of kTile.
void sum_products(cudaStream_t stream, const float* x, float* y, int n, Defect defect);
/// sum[column] += every row's x; a block a row. `sum` begins as zeros.
void sum_columns(cudaStream_t stream, const float* x, float* sum, int rows, int n, Defect defect);

}  // namespace moesaic::defects
