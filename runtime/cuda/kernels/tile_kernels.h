// The kernels that run functors of tiles.h. For .cu files only.
#pragma once

#include "runtime/cuda/kernels/quads.h"

namespace moesaic::kernels {

/// The threads of a block that share a row. Sums are trees of fixed shape: the same bits in every thread.
struct Team {
    int lane;
    static constexpr int kSize = kTeamThreads;

    template <class T>
    __device__ T sum(T value) const {
        GPU_SHARED(T, of_warps, kTeamThreads / 32);
        value = Warp{lane % 32}.sum(value);
        if (lane % 32 == 0) of_warps[lane / 32] = value;
        __syncthreads();
        T total = of_warps[0];
        for (int warp = 1; warp < kTeamThreads / 32; ++warp) total += of_warps[warp];
        __syncthreads();  // before the next sum is written there
        return total;
    }
    __device__ void sync() const { __syncthreads(); }
};

template <class Functor>
__global__ void __launch_bounds__(kTeamThreads) team_kernel(Functor f) {
    f(static_cast<i64>(blockIdx.x), Team{static_cast<int>(threadIdx.x)});
}

template <class Functor>
__global__ void __launch_bounds__(kTeamThreads) quad_kernel(i64 count, Functor f) {
    const i64 first = (static_cast<i64>(blockIdx.x) * kTeamThreads + threadIdx.x) * kQuad;
    if (first < count) f(first, count - first);
}

/// Blocks are numbered with the `inner` ones together: row blocks of a panel, or panels of a row block.
template <class Functor>
__global__ void __launch_bounds__(kTeamThreads)
    tile_kernel(i64 rows, i32 columns, i32 lane_bits, u32 inner, Functor f) {
    const u32 outer = blockIdx.x / inner, rest = blockIdx.x - outer * inner;
    const u32 panel = Functor::kPanelsFirst ? outer : rest, row_block = Functor::kPanelsFirst ? rest : outer;
    const i32 column =
        static_cast<i32>(panel << lane_bits) + static_cast<i32>(threadIdx.x & ((1u << lane_bits) - 1));
    if (column >= columns) return;
    const i64 step = kTeamThreads >> lane_bits;
    const i64 row = static_cast<i64>(row_block) * (step * Functor::kRows) + (threadIdx.x >> lane_bits);
    if (row < rows) f(Tile{row, step, rows, column});
}

template <class Functor>
void each_quad(cudaStream_t stream, i64 count, const Functor& f) {
    if (count == 0) return;
    constexpr i64 kElements = kTeamThreads * kQuad;
    const Functor functor = f;
    GPU_LAUNCH((quad_kernel<Functor>), static_cast<unsigned>((count + kElements - 1) / kElements),
               kTeamThreads, 0, stream, count, functor);
}

template <class Functor>
void each_tile(cudaStream_t stream, i64 rows, i64 columns, const Functor& f) {
    if (rows == 0 || columns == 0) return;
    constexpr int kMostBits =
        Functor::kPanelsFirst ? 6 : 8;  // a panel of 1 KiB stays in the cache for all rows
    int bits = 0;
    while (bits < kMostBits && (i64{1} << bits) < columns) ++bits;
    const i64 rows_per_block = (kTeamThreads >> bits) * Functor::kRows;
    const i64 row_blocks = (rows + rows_per_block - 1) / rows_per_block, panels = ((columns - 1) >> bits) + 1;
    const Functor functor = f;
    GPU_LAUNCH((tile_kernel<Functor>), static_cast<unsigned>(row_blocks * panels), kTeamThreads, 0, stream,
               rows, static_cast<i32>(columns), bits,
               static_cast<u32>(Functor::kPanelsFirst ? row_blocks : panels), functor);
}

template <class Functor>
void each_team(cudaStream_t stream, i64 count, const Functor& f) {
    if (count == 0) return;
    const Functor functor = f;
    GPU_LAUNCH((team_kernel<Functor>), static_cast<unsigned>(count), kTeamThreads, 0, stream, functor);
}

template <class Functor>
void each_row_of(cudaStream_t stream, i64 rows, i64 width, const Functor& f) {
    constexpr i64 kMostColumnsOfWarp = 1024;
    width > kMostColumnsOfWarp ? each_team(stream, rows, f) : each_row(stream, rows, f);
}

}  // namespace moesaic::kernels

#define MOESAIC_EACH_QUAD(...) \
    template void moesaic::kernels::each_quad(cudaStream_t, i64, const __VA_ARGS__&)
#define MOESAIC_EACH_TILE(...) \
    template void moesaic::kernels::each_tile(cudaStream_t, i64, i64, const __VA_ARGS__&)
#define MOESAIC_EACH_TEAM(...) \
    template void moesaic::kernels::each_team(cudaStream_t, i64, const __VA_ARGS__&)
#define MOESAIC_EACH_ROW_OF(...) \
    template void moesaic::kernels::each_row_of(cudaStream_t, i64, i64, const __VA_ARGS__&)
#define MOESAIC_FOR_REAL_QUADS(MACRO, Functor) \
    MACRO(Functor<float, true>);               \
    MACRO(Functor<float, false>);              \
    MACRO(Functor<double, false>)
#define MOESAIC_FOR_QUADS(MACRO, Functor)   \
    MOESAIC_FOR_REAL_QUADS(MACRO, Functor); \
    MACRO(Functor<Bf16, true>);             \
    MACRO(Functor<Bf16, false>)
