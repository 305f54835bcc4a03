// What RouterSumChunk does, for .cu files: it is a kernel of its own and part of another.
#pragma once

#include "runtime/cuda/kernels/device.h"
#include "runtime/cuda/kernels/router_sums.h"

namespace moesaic::kernels {

/// The first of the largest, in every lane. NaN is never larger than anything, and stays where it is first.
template <class T>
__device__ inline int most_probable(const T* probability, int experts, const Warp& warp) {
    T most = minus_infinity<T>();
    int best = experts;
    for (int e = warp.lane; e < experts; e += 32) {
        const T one = probability[e];
        const T rank = one == one ? one : e == 0 ? -minus_infinity<T>() : minus_infinity<T>();
        if (best == experts || most < rank) {
            most = rank;
            best = e;
        }
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        const T other_most = __shfl_xor_sync(Warp::kAll, most, distance);
        const int other = __shfl_xor_sync(Warp::kAll, best, distance);
        if (most < other_most || (!(other_most < most) && other < best)) {
            most = other_most;
            best = other;
        }
    }
    return best;
}

struct TokenRange {
    i64 first, last;
};
/// The tokens of a chunk: none in those that a short last object has not.
template <class T>
__device__ inline TokenRange tokens_of(const RouterSumChunk<T>& sums, i64 chunk) {
    const i64 object_first = chunk / sums.chunks * sums.rows_per_object;
    const i64 end = smaller(object_first + sums.rows_per_object, sums.tokens);
    const i64 first = object_first + chunk % sums.chunks * kTokensPerSum;
    return {first, smaller(first + kTokensPerSum, end)};
}

template <class T>
__device__ inline double square_of(T value) {
    return static_cast<double>(value) * static_cast<double>(value);
}

/// The counts and weights of an expert's choices among those of the chunk, every `lanes`-th.
template <class T>
__device__ inline void add_choices(const RouterSumChunk<T>& sums, const TokenRange& range, i64 expert,
                                   int lane, int lanes, const ThreadBlock& block, double* sum) {
    GPU_SHARED(i32, chosen, kBlockThreads);
    GPU_SHARED(T, weights, kBlockThreads);
    int count = 0;
    double total = 0;
    const i64 last = range.last * sums.choices;
    for (i64 first = range.first * sums.choices; first < last; first += kBlockThreads) {
        const int here = static_cast<int>(smaller<i64>(kBlockThreads, last - first));
        if (block.thread < here) {
            chosen[block.thread] = sums.index[first + block.thread];
            weights[block.thread] = sums.weight[first + block.thread];
        }
        block.sync();
        for (int i = lane; i < here; i += lanes) {
            if (chosen[i] != expert) continue;
            ++count;
            total += static_cast<double>(weights[i]);
        }
        block.sync();
    }
    sum[0] = count;
    sum[3] = total;
}

/// The sum of column[row * stride] over every `lanes`-th row, from `lane` on. Several are on their way at
/// once.
template <class T>
__device__ inline double sum_of_rows(const T* column, int stride, const TokenRange& range, int lane,
                                     int lanes) {
    constexpr int kAtOnce = 8;
    double sum = 0;
    for (i64 row = range.first + lane; row < range.last; row += kAtOnce * lanes) {
        T value[kAtOnce];
        for (int i = 0; i < kAtOnce; ++i)
            value[i] = row + i * lanes < range.last ? column[(row + i * lanes) * stride] : T{0};
        for (int i = 0; i < kAtOnce; ++i) sum += static_cast<double>(value[i]);
    }
    return sum;
}

/// How many tokens, every `lanes`-th, have the expert first; `most` are the most probable of the chunk's.
template <class T>
__device__ inline int balance_count(const RouterSumChunk<T>& sums, const TokenRange& range, i64 expert,
                                    int lane, int lanes, const i32* most) {
    int count = 0;
    for (i64 row = range.first + lane; row < range.last; row += lanes) {
        if (sums.counted == Counted::first) count += sums.index[row * sums.choices] == expert ? 1 : 0;
        if (sums.counted == Counted::most_probable && sums.probability)
            count += most[row - range.first] == expert ? 1 : 0;
    }
    return count;
}

template <class T>
__device__ void RouterSumChunk<T>::operator()(i64 number, const ThreadBlock& block) const {
    GPU_SHARED(i32, most, kTokensPerSum);
    GPU_SHARED(double, sums, kExpertSums* kBlockThreads);
    const i64 chunk = number / tiles, first_expert = number % tiles * kBlockThreads;
    const TokenRange range = tokens_of(*this, chunk);
    const Warp warp = block.warp();
    if (counted == Counted::most_probable && probability) {
        for (i64 row = range.first + block.warp_number(); row < range.last; row += kBlockWarps) {
            const int best = most_probable(probability + row * experts, experts, warp);
            if (warp.lane == 0) most[row - range.first] = best;
        }
    }
    const int lane = block.thread / experts_at_once, lanes = kBlockThreads / experts_at_once;
    const i64 expert = first_expert + block.thread % experts_at_once;
    double sum[kExpertSums] = {};
    add_choices(*this, range, expert, lane, lanes, block, sum);
    block.sync();
    if (expert < experts) {
        if (counted != Counted::all) sum[1] = balance_count(*this, range, expert, lane, lanes, most);
        if (probability) sum[2] = sum_of_rows(probability + expert, experts, range, lane, lanes);
        if (load_probability) sum[4] = sum_of_rows(load_probability + expert, experts, range, lane, lanes);
    }
    if (counted == Counted::all) sum[1] = sum[0];
    for (int i = 0; i < kExpertSums; ++i) sums[i * kBlockThreads + block.thread] = sum[i];
    block.sync();
    for (int i = block.thread; i < kExpertSums * experts_at_once; i += kBlockThreads) {
        const int which = i / experts_at_once, column = i % experts_at_once;
        double total = 0;
        for (int k = 0; k < lanes; ++k) total += sums[which * kBlockThreads + k * experts_at_once + column];
        if (first_expert + column < experts)
            part[(which * objects * chunks + chunk) * experts + first_expert + column] = total;
    }
    if (first_expert > 0 || block.warp_number() > 0) return;
    const i64 row = range.first + warp.lane;
    const double z = warp.sum(log_sum_exp && row < range.last ? square_of(log_sum_exp[row]) : 0.0);
    if (warp.lane == 0) z_part[chunk] = z;
}

}  // namespace moesaic::kernels
