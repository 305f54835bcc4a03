// The softmax and the choices of a row whose columns a warp's lanes hold, for .cu files: lane l has those of
// number l + 32 i in element i.
#pragma once

#include "runtime/cuda/kernels/choices.h"
#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

/// Reads a row; what is past its last column is -infinity.
template <class T, int per_lane>
__device__ inline void read_columns(const T* from, i64 columns, const Warp& warp, T (&x)[per_lane]) {
    for (int i = 0; i < per_lane; ++i)
        x[i] = warp.lane + 32 * i < columns ? from[warp.lane + 32 * i] : minus_infinity<T>();
}
template <class T, int per_lane>
__device__ inline void write_columns(T* to, i64 columns, const Warp& warp, const T (&x)[per_lane]) {
    for (int i = 0; i < per_lane; ++i)
        if (warp.lane + 32 * i < columns) to[warp.lane + 32 * i] = x[i];
}

/// x becomes its softmax; the logarithm of the sum of exponentials in every lane.
template <class T, int per_lane>
__device__ inline T softmax_of(i64 columns, const Warp& warp, T (&x)[per_lane]) {
    T most = minus_infinity<T>(), sum = 0;
    for (int i = 0; i < per_lane; ++i) most = larger(most, x[i]);
    most = warp.largest(most);
    for (int i = 0; i < per_lane; ++i) {
        x[i] = warp.lane + 32 * i < columns ? std::exp(x[i] - most) : T{0};
        sum += x[i];
    }
    sum = warp.sum(sum);
    for (int i = 0; i < per_lane; ++i) x[i] /= sum;
    return most + std::log(sum);
}

// Scores as whole numbers in the order of choices: NaN is 1, less than any other; 0 is no candidate.
__device__ inline u32 rank_of(float score) {
    const u32 bits = __float_as_uint(score + 0.0F);  // -0 is 0
    if (score != score) return 1;
    return (bits >> 31) != 0 ? ~bits : bits | 1u << 31;
}
__device__ inline u64 rank_of(double score) {
    const u64 bits = static_cast<u64>(__double_as_longlong(score + 0.0));
    if (score != score) return 1;
    return (bits >> 63) != 0 ? ~bits : bits | u64{1} << 63;
}

/// The best of a group, or its two best together.
template <class Row, class T>
__device__ inline T group_score(const Row& row, const T* scores, i64 group, i64 size) {
    T best = 0, second = 0;
    i64 seen = 0;
    for (i64 i = group * size; i < (group + 1) * size; ++i, ++seen) {
        const T score = row.bias ? scores[i] + row.bias[i] : scores[i];
        if (seen == 0 || is_better(score, best)) {
            second = best;
            best = score;
        } else if (seen == 1 || is_better(score, second)) {
            second = score;
        }
    }
    return row.two_best && size > 1 ? best + second : best;
}

/// Whether each group is among the best top_groups: fewer than those come before it. Of up to `warps` rows of
/// a block at once.
template <int warps, class Row, class T>
__device__ inline const i32* top_groups_of(const Row& row, const T* scores, i64 size, const Warp& warp) {
    GPU_SHARED(T, score_of_groups, warps * kMostGroups);
    GPU_SHARED(i32, top_of_groups, warps * kMostGroups);
    T* const group_scores = score_of_groups + threadIdx.x / 32 * kMostGroups;
    i32* const is_top = top_of_groups + threadIdx.x / 32 * kMostGroups;
    for (i64 group = warp.lane; group < row.groups; group += Warp::kSize)
        group_scores[group] = group_score(row, scores, group, size);
    warp.sync();
    for (i64 group = warp.lane; group < row.groups; group += Warp::kSize) {
        i64 before = 0;
        for (i64 other = 0; other < row.groups; ++other)
            before += comes_before(group_scores[other], other, group_scores[group], group) ? 1 : 0;
        is_top[group] = before < row.top_groups ? 1 : 0;
    }
    warp.sync();
    return is_top;
}

constexpr i32 kNoColumn = 0x7fffffff;

/// The lanes' best candidate, in every lane: the highest rank, and of equal ones the first.
__device__ inline void first_choice(u32& rank, i32& column) {
    const u32 best = __reduce_max_sync(Warp::kAll, rank);
    column =
        static_cast<i32>(__reduce_min_sync(Warp::kAll, static_cast<u32>(rank == best ? column : kNoColumn)));
    rank = best;
}
__device__ inline void first_choice(u64& rank, i32& column) {
    for (int distance = 16; distance > 0; distance /= 2) {
        const u64 other = __shfl_xor_sync(Warp::kAll, rank, distance);
        const i32 other_column = __shfl_xor_sync(Warp::kAll, column, distance);
        if (other > rank || (other == rank && other_column < column)) {
            rank = other;
            column = other_column;
        }
    }
}

/// The best `choices` columns one after the other, by rank, equal ones by number; rank is used up. Lanes keep
/// 32 and give them away together: emit(k, column) for the k-th.
template <class Rank, int per_lane, class Emit>
__device__ inline void choose(i64 choices, const Warp& warp, Rank (&rank)[per_lane], const Emit& emit) {
    i32 mine = kNoColumn;
    for (i64 k = 0; k < choices; ++k) {
        Rank best = 0;
        i32 column = kNoColumn;
        for (int i = 0; i < per_lane; ++i) {
            if (rank[i] <= best) continue;
            best = rank[i];
            column = warp.lane + 32 * i;
        }
        first_choice(best, column);
        for (int i = 0; i < per_lane; ++i)
            if (column == warp.lane + 32 * i) rank[i] = 0;
        if (k % 32 == warp.lane) mine = column;
        const i64 place = k / 32 * 32 + warp.lane;
        if ((k % 32 == 31 || k + 1 == choices) && place <= k) emit(place, mine);
    }
}

}  // namespace moesaic::kernels
