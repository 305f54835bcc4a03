// Device code that kernels share, and the kernels that run functors. For .cu files only.
#pragma once

#include <cmath>

#include "runtime/cuda/gpu.h"
#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

template <class Stored>
__device__ inline Stored read(Stored value) {
    return value;
}
__device__ inline float read(Bf16 value) {
    return __uint_as_float(static_cast<u32>(value.bits) << 16);
}

__device__ inline void write(double& to, double value) {
    to = value;
}
__device__ inline void write(float& to, float value) {
    to = value;
}
/// To nearest, ties to even; NaN stays NaN.
__device__ inline void write(Bf16& to, float value) {
    const u32 bits = __float_as_uint(value);
    const u32 rounded = value != value ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    to.bits = static_cast<std::uint16_t>(rounded >> 16);
}

template <class T>
__device__ inline T larger(T a, T b) {
    return a < b ? b : a;
}
template <class T>
__device__ inline T smaller(T a, T b) {
    return b < a ? b : a;
}
/// NaN counts as the smallest of all.
template <class T>
__device__ inline bool is_better(T a, T b) {
    return b != b ? a == a : a > b;
}
/// The order of choices: by score, equal ones by number.
template <class T>
__device__ inline bool comes_before(T score, i64 number, T other_score, i64 other_number) {
    return is_better(score, other_score) || (!is_better(other_score, score) && number < other_number);
}
template <class T>
__device__ inline T sigmoid(T x) {
    return T{1} / (T{1} + std::exp(-x));
}
template <class T>
__device__ inline T minus_infinity() {
    return -static_cast<T>(HUGE_VAL);
}

/// The lanes that share a row. Sums are trees of fixed shape: the same bits in every lane and every run.
struct Warp {
    int lane;
    static constexpr unsigned kAll = 0xffffffffu;
    static constexpr i64 kSize = 32;

    template <class T>
    __device__ T sum(T value) const {
        for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kAll, value, distance);
        return value;
    }
    template <class T>
    __device__ T largest(T value) const {
        for (int distance = 16; distance > 0; distance /= 2)
            value = larger(value, __shfl_xor_sync(kAll, value, distance));
        return value;
    }
    __device__ bool any(bool predicate) const { return __any_sync(kAll, predicate) != 0; }
    __device__ void sync() const { __syncwarp(); }
};

inline constexpr int kBlockWarps = kBlockThreads / 32;
/// The threads of a block.
struct ThreadBlock {
    int thread;

    __device__ Warp warp() const { return {thread % 32}; }
    __device__ int warp_number() const { return thread / 32; }
    __device__ void sync() const { __syncthreads(); }
    /// The sum, in thread 0; warps in ascending order. `room` is shared memory for kBlockWarps numbers that
    /// no thread uses before the next barrier.
    template <class T>
    __device__ T sum(T value, T* room) const {
        value = warp().sum(value);
        if (thread % 32 == 0) room[warp_number()] = value;
        sync();
        T total = 0;
        for (int i = 0; i < kBlockWarps && thread == 0; ++i) total += room[i];
        return total;
    }
    /// The sum over the threads before this one. `room` is as in sum, and holds the warps' sums afterwards.
    template <class T>
    __device__ T sum_before(T value, T* room) const {
        const int lane = thread % 32;
        T through = value;
        for (int distance = 1; distance < 32; distance *= 2) {
            const T other = __shfl_sync(Warp::kAll, through, (lane - distance) & 31);
            if (lane >= distance) through += other;
        }
        if (lane == 31) room[warp_number()] = through;
        sync();
        T sum = through - value;
        for (int i = 0; i < warp_number(); ++i) sum += room[i];
        return sum;
    }
};

inline constexpr int kEachThreads = 256, kRowsPerBlock = 4;

template <class Functor>
__global__ void __launch_bounds__(kEachThreads) each_kernel(i64 count, Functor f) {
    const i64 stride = static_cast<i64>(gridDim.x) * kEachThreads;
    for (i64 i = static_cast<i64>(blockIdx.x) * kEachThreads + threadIdx.x; i < count; i += stride) f(i);
}

template <class Functor>
__global__ void __launch_bounds__(kRowsPerBlock * 32) row_kernel(i64 rows, Functor f) {
    const i64 row = static_cast<i64>(blockIdx.x) * kRowsPerBlock + threadIdx.x / 32;
    if (row < rows) f(row, Warp{static_cast<int>(threadIdx.x % 32)});
}

template <class Functor>
__global__ void __launch_bounds__(kBlockThreads, 3) block_kernel(Functor f) {
    f(static_cast<i64>(blockIdx.x), ThreadBlock{static_cast<int>(threadIdx.x)});
}

template <class Functor>
void each(cudaStream_t stream, i64 count, const Functor& f) {
    if (count == 0) return;
    constexpr i64 kMostBlocks = 1 << 20;
    const i64 blocks = (count + kEachThreads - 1) / kEachThreads;
    const Functor functor = f;
    GPU_LAUNCH((each_kernel<Functor>), static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks),
               kEachThreads, 0, stream, count, functor);
}

template <class Functor>
void each_row(cudaStream_t stream, i64 rows, const Functor& f) {
    if (rows == 0) return;
    const Functor functor = f;
    GPU_LAUNCH((row_kernel<Functor>), static_cast<unsigned>((rows + kRowsPerBlock - 1) / kRowsPerBlock),
               kRowsPerBlock * 32, 0, stream, rows, functor);
}

template <class Functor>
void each_block(cudaStream_t stream, i64 blocks, const Functor& f) {
    if (blocks == 0) return;
    const Functor functor = f;
    GPU_LAUNCH((block_kernel<Functor>), static_cast<unsigned>(blocks), kBlockThreads, 0, stream, functor);
}

}  // namespace moesaic::kernels

// Instantiations, for what the back end calls.
#define MOESAIC_EACH(...) template void moesaic::kernels::each(cudaStream_t, i64, const __VA_ARGS__&)
#define MOESAIC_EACH_ROW(...) template void moesaic::kernels::each_row(cudaStream_t, i64, const __VA_ARGS__&)
#define MOESAIC_EACH_BLOCK(...) \
    template void moesaic::kernels::each_block(cudaStream_t, i64, const __VA_ARGS__&)
#define MOESAIC_FOR_REALS(MACRO, Functor) \
    MACRO(Functor<float>);                \
    MACRO(Functor<double>)
#define MOESAIC_FOR_STORED(MACRO, Functor) \
    MOESAIC_FOR_REALS(MACRO, Functor);     \
    MACRO(Functor<Bf16>)
