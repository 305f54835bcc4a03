// A warp's sums [16,256] (warpgroup_product.h) on their way to device memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "runtime/cuda/gpu.h"
#include "runtime/cuda/hopper/warpgroup_product.h"

namespace moesaic::hopper {

/// Rows and columns that a warp may write, from its first on; what is beyond is not there or others'.
struct ResultPiece {
    int rows, columns;
    int stride;
};

/// sums += c, in f32.
__device__ inline void add_piece(Sums& sums, const ResultPiece& piece, const std::uint16_t* c) {
    const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4, first = lane % 4 * 2;
    const std::uint16_t* const upper = c + static_cast<std::int64_t>(row) * piece.stride + first;
    const std::uint16_t* const lower = upper + static_cast<std::int64_t>(8) * piece.stride;
    GPU_UNROLL
    for (int i = 0; i < kSums; i += 2) {
        const bool in_lower = i % 4 >= 2;
        const int column = i / 4 * 8;
        if ((in_lower ? row + 8 : row) < piece.rows && column + first < piece.columns) {
            const unsigned pair = *reinterpret_cast<const unsigned*>((in_lower ? lower : upper) + column);
            sums[i] += __uint_as_float(pair << 16);
            sums[i + 1] += __uint_as_float(pair & 0xFFFF0000u);
        }
    }
}

/// c = sums, rounded once. By way of shared memory, 64 columns at a time, whose pieces of 16 bytes stand
/// where neither rows nor columns meet in a bank: lanes then write 128 bytes of a row side by side.
__device__ inline void store_piece(const Sums& sums, const ResultPiece& piece, std::uint16_t* c,
                                   unsigned room) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const auto place = [room](int row, int chunk) { return room + row * 128 + ((chunk ^ (row & 7)) << 4); };
    const int row = lane / 8, first = lane % 8 * 8;
    std::uint16_t* const begin = c + static_cast<std::int64_t>(row) * piece.stride + first;
    const std::int64_t four_rows = static_cast<std::int64_t>(4) * piece.stride;
    GPU_UNROLL
    for (int block = 0; block < kSums / 32; ++block) {
        GPU_UNROLL
        for (int i = 0; i < 4; ++i) {
            const float* const s = sums + block * 32 + i * 8;
            const unsigned pairs[4] = {gpu::bf16_pair(s[0], s[1]), gpu::bf16_pair(s[2], s[3]),
                                       gpu::bf16_pair(s[4], s[5]), gpu::bf16_pair(s[6], s[7])};
            store_matrices(place(lane % 16, i * 2 + lane / 16), pairs);
        }
        __syncwarp();
        std::uint16_t* to = begin + block * 64;
        const bool inside = block * 64 + first < piece.columns;
        GPU_UNROLL
        for (int i = 0; i < 4; ++i) {
            const uint4 value = load_shared(place(row + i * 4, lane % 8));
            if (inside && row + i * 4 < piece.rows) *reinterpret_cast<uint4*>(to) = value;
            to += four_rows;
        }
        __syncwarp();
    }
}

/// c = (onto ? c : 0) + sums, in f64. Some loads at once, before their stores; both pass caches, which
/// operands need.
__device__ inline void fold_piece(const Sums& sums, const ResultPiece& piece, double* c, bool onto) {
    constexpr int kAtOnce = 8;
    const int lane = static_cast<int>(threadIdx.x) % 32, row = lane / 4, first = lane % 4 * 2;
    double* const upper = c + static_cast<std::int64_t>(row) * piece.stride + first;
    double* const lower = upper + static_cast<std::int64_t>(8) * piece.stride;
    const int columns_upper = row < piece.rows ? piece.columns - first : 0;
    const int columns_lower = row + 8 < piece.rows ? piece.columns - first : 0;
    GPU_UNROLL
    for (int begin = 0; begin < kSums / 2; begin += kAtOnce) {
        double2 held[kAtOnce] = {};
        GPU_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
            const int column = (begin + i) / 2 * 8;
            const double* const from = (i % 2 == 0 ? upper : lower) + column;
            if (onto && column < (i % 2 == 0 ? columns_upper : columns_lower))
                held[i] = __ldcs(reinterpret_cast<const double2*>(from));
        }
        GPU_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
            const int column = (begin + i) / 2 * 8;
            double* const to = (i % 2 == 0 ? upper : lower) + column;
            held[i].x += static_cast<double>(sums[2 * (begin + i)]);
            held[i].y += static_cast<double>(sums[2 * (begin + i) + 1]);
            if (column < (i % 2 == 0 ? columns_upper : columns_lower))
                __stcs(reinterpret_cast<double2*>(to), held[i]);
        }
    }
}

}  // namespace moesaic::hopper
