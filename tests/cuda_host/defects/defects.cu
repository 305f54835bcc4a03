#include "tests/cuda_host/defects/defects.h"

#include <cmath>

#include "runtime/cuda/gpu.h"

namespace moesaic::defects {

constexpr unsigned kAll = 0xffffffffu;

__device__ inline float block_sum(float* parts, float value, Defect defect) {
    if (defect != Defect::no_barrier_before_reuse) __syncthreads();  // whoever still reads the last sum
    parts[threadIdx.x] = value;
    if (defect != Defect::no_barrier_after_write) __syncthreads();
    float sum = 0;
    for (int i = 0; i < kThreads; ++i) sum += parts[i];
    return sum;
}

__global__ void normalize_kernel(const float* x, float* y, int n, Defect defect) {
    GPU_SHARED(float, parts, kThreads);
    const float* const from = x + static_cast<std::int64_t>(blockIdx.x) * n;
    float* const to = y + static_cast<std::int64_t>(blockIdx.x) * n;
    const int thread = static_cast<int>(threadIdx.x);
    const int last = defect == Defect::row_read_too_far  ? n + 1
                     : defect == Defect::loop_left_early ? n - 1
                                                         : n;
    float largest = 0, squares = 0;
    for (int i = thread; i < last; i += kThreads) largest = largest < from[i] ? from[i] : largest;
    largest = block_sum(parts, largest, Defect::none);  // scales that cancel
    for (int i = thread; i < last; i += kThreads) squares += from[i] / largest * (from[i] / largest);
    if (defect == Defect::barrier_in_branch) {
        if (thread < 100) squares = block_sum(parts, squares, defect);
    } else {
        squares = block_sum(parts, squares, defect);
    }
    for (int i = thread; i < n; i += kThreads)
        to[i] = from[i] / largest / std::sqrt(squares / static_cast<float>(n));
}

__global__ void sum_rows_kernel(const float* x, float* sums, int rows, int n, Defect defect) {
    GPU_SHARED(float, first, 4);
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const int row = static_cast<int>(blockIdx.x) * 4 + warp;
    if (row >= rows) return;
    float sum = 0;
    for (int i = lane; i < n; i += 32) sum += x[static_cast<std::int64_t>(row) * n + i];
    for (int distance = 16; distance > 0; distance /= 2) {
        if (defect == Defect::lane_leaves_shuffles && lane == 22 && distance == 4) break;
        sum += __shfl_xor_sync(kAll, sum, distance);
    }
    if (lane == 0) first[warp] = sum;
    if (defect != Defect::no_sync_of_warp) __syncwarp();
    if (lane == 31) sums[row] = first[warp];
}

__global__ void count_keys_kernel(const int* keys, int* counts, int n, Defect defect) {
    GPU_SHARED(int, histogram, kKeys);
    const int thread = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x) * kThreads + thread;
    const int length = defect == Defect::shared_array_overrun ? kKeys + 1 : kKeys;
    if (thread < length && defect != Defect::histogram_not_zeroed) histogram[thread] = 0;
    __syncthreads();
    if (i < n && defect == Defect::counted_without_atomic) histogram[keys[i]] += 1;
    if (i < n && defect != Defect::counted_without_atomic) atomicAdd(&histogram[keys[i]], 1);
    __syncthreads();
    if (thread < kKeys) atomicAdd(&counts[thread], histogram[thread]);
}

__global__ void sort_keys_kernel(const int* keys, int* order, int n, Defect defect) {
    GPU_SHARED(int, chosen, kThreads);
    const int thread = static_cast<int>(threadIdx.x);
    int placed = 0;
    for (int key = 0; key < kKeys; ++key) {
        chosen[thread] = thread < n && keys[thread] == key ? 1 : 0;
        __syncthreads();
        int before = placed;
        for (int i = 0; i < thread; ++i) before += chosen[i];
        for (int i = 0; i < kThreads; ++i) placed += chosen[i];
        if (chosen[thread]) order[before] = thread;
        if (defect != Defect::no_barrier_at_loop_end) __syncthreads();
    }
}

__global__ void copy_rows_kernel(const float* from, float* to, int rows, int n, Defect defect) {
    const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * n;
    const bool last_row = static_cast<int>(blockIdx.x) + 1 == rows;
    const int count = defect == Defect::row_written_too_far && !last_row ? n + 1 : n;
    if (defect == Defect::output_not_written && last_row) return;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) to[first + i] = from[first + i];
}

__global__ void double_all_kernel(const float* x, float* y, int n, Defect defect) {
    const int i = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (i + 4 >= n + (defect == Defect::misaligned_load ? 0 : 1)) return;
    const float* const from = x + i + (defect == Defect::misaligned_load ? 1 : 0);
    const float4 four = *reinterpret_cast<const float4*>(from);
    float factor = 2;
    // Defined by the build: nothing for g++.
    MOESAIC_FOR_NVCC(asm("mul.f32 %0, %1, %2;"
                         : "=f"(factor)
                         : "f"(1.0f), "f"(defect == Defect::in_device_branch ? 3.0f : 2.0f)));
    *reinterpret_cast<float4*>(y + i) =
        make_float4(four.x * factor, four.y * factor, four.z * factor, four.w * factor);
}

__global__ void sum_products_kernel(const float* x, float* y, int n, Defect defect) {
    GPU_SHARED(float, tile, kTile);
    const int thread = static_cast<int>(threadIdx.x);
    float sum = 0;
    for (int first = 0; first < n; first += kTile) {
        if (thread < kTile) tile[thread] = x[first + thread];
        __syncthreads();
        for (int j = 0; j < kTile; ++j) sum += tile[j];
        if (defect != Defect::tile_overwritten) __syncthreads();
    }
    if (thread < n) y[thread] = x[thread] * sum;
}

__global__ void sum_columns_kernel(const float* x, float* sum, int n, Defect defect) {
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
        const float value = x[static_cast<std::int64_t>(blockIdx.x) * n + i];
        if (defect == Defect::summed_across_blocks) {
            sum[i] += value;
        } else {
            atomicAdd(&sum[i], value);
        }
    }
}

inline unsigned blocks_for(int count, int each) {
    return static_cast<unsigned>((count + each - 1) / each);
}

void normalize(cudaStream_t stream, const float* x, float* y, int rows, int n, Defect defect) {
    GPU_LAUNCH(normalize_kernel, static_cast<unsigned>(rows), kThreads, 0, stream, x, y, n, defect);
}
void sum_rows(cudaStream_t stream, const float* x, float* sums, int rows, int n, Defect defect) {
    GPU_LAUNCH(sum_rows_kernel, blocks_for(rows, 4), 128, 0, stream, x, sums, rows, n, defect);
}
void count_keys(cudaStream_t stream, const int* keys, int* counts, int n, Defect defect) {
    GPU_LAUNCH(count_keys_kernel, blocks_for(n, kThreads), kThreads, 0, stream, keys, counts, n, defect);
}
void sort_keys(cudaStream_t stream, const int* keys, int* order, int n, Defect defect) {
    GPU_LAUNCH(sort_keys_kernel, 1, kThreads, 0, stream, keys, order, n, defect);
}
void copy_rows(cudaStream_t stream, const float* from, float* to, int rows, int n, Defect defect) {
    GPU_LAUNCH(copy_rows_kernel, static_cast<unsigned>(rows), kThreads, 0, stream, from, to, rows, n, defect);
}
void double_all(cudaStream_t stream, const float* x, float* y, int n, Defect defect) {
    GPU_LAUNCH(double_all_kernel, blocks_for(n, 4 * kThreads), kThreads, 0, stream, x, y, n, defect);
}
void sum_products(cudaStream_t stream, const float* x, float* y, int n, Defect defect) {
    GPU_LAUNCH(sum_products_kernel, 1, kThreads, 0, stream, x, y, n, defect);
}
void sum_columns(cudaStream_t stream, const float* x, float* sum, int rows, int n, Defect defect) {
    GPU_LAUNCH(sum_columns_kernel, static_cast<unsigned>(rows), kThreads, 0, stream, x, sum, n, defect);
}

}  // namespace moesaic::defects
