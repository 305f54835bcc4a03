#include "runtime/cuda/kernels/choosing.h"

namespace moesaic::kernels {

template <class T, int per_lane>
__device__ void SoftmaxRow<T, per_lane>::operator()(i64 row, const Warp& warp) const {
    const T* const from = logits + row * columns;
    T* const to = probability + row * columns;
    if constexpr (per_lane > 0) {
        T x[per_lane];
        read_columns(from, columns, warp, x);
        const T total = softmax_of(columns, warp, x);
        write_columns(to, columns, warp, x);
        if (warp.lane == 0) log_sum_exp[row] = total;
    } else {
        T most = minus_infinity<T>(), sum = 0;
        for (i64 i = warp.lane; i < columns; i += Warp::kSize) most = larger(most, from[i]);
        most = warp.largest(most);
        for (i64 i = warp.lane; i < columns; i += Warp::kSize) {
            const T power = std::exp(from[i] - most);
            to[i] = power;
            sum += power;
        }
        sum = warp.sum(sum);
        for (i64 i = warp.lane; i < columns; i += Warp::kSize) to[i] /= sum;
        if (warp.lane == 0) log_sum_exp[row] = most + std::log(sum);
    }
}

template <class T, int per_lane>
__device__ void TopKRow<T, per_lane>::operator()(i64 row, const Warp& warp) const {
    using Rank = decltype(rank_of(T{}));
    const T* const from = scores + row * columns;
    const i64 size = columns / groups;
    const i32* const is_top =
        top_groups < groups ? top_groups_of<kRowsPerBlock>(*this, from, size, warp) : nullptr;
    const auto rank_at = [&](i32 column) {
        if (is_top && is_top[column / static_cast<i32>(size)] == 0) return rank_of(minus_infinity<T>());
        return rank_of(bias ? from[column] + bias[column] : from[column]);
    };
    const auto put = [&](i64 k, i32 column) {
        index[row * choices + k] = column;
        value[row * choices + k] = from[column];
    };
    if constexpr (per_lane > 0) {
        Rank rank[per_lane];
        for (int i = 0; i < per_lane; ++i)
            rank[i] = warp.lane + 32 * i < columns ? rank_at(warp.lane + 32 * i) : Rank{0};
        choose(choices, warp, rank, put);
    } else {
        // Each is the best that comes after the one before.
        Rank last = ~Rank{0};  // more than any
        i32 last_column = -1;
        for (i64 k = 0; k < choices; ++k) {
            Rank best = 0;
            i32 column = kNoColumn;
            for (i32 i = warp.lane; i < columns; i += 32) {
                const Rank one = rank_at(i);
                if (one > last || (one == last && i <= last_column) || one <= best) continue;
                best = one;
                column = i;
            }
            first_choice(best, column);
            if (warp.lane == 0) put(k, column);
            last = best;
            last_column = column;
        }
    }
}

#define MOESAIC_EACH_ROW_SIZE(Functor, T) \
    MOESAIC_EACH_ROW(Functor<T, 1>);      \
    MOESAIC_EACH_ROW(Functor<T, 2>);      \
    MOESAIC_EACH_ROW(Functor<T, 4>);      \
    MOESAIC_EACH_ROW(Functor<T, 8>);      \
    MOESAIC_EACH_ROW(Functor<T, 0>)
MOESAIC_EACH_ROW_SIZE(SoftmaxRow, float);
MOESAIC_EACH_ROW_SIZE(SoftmaxRow, double);
MOESAIC_EACH_ROW_SIZE(TopKRow, float);
MOESAIC_EACH_ROW_SIZE(TopKRow, double);

}  // namespace moesaic::kernels
