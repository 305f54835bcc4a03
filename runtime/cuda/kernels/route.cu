#include "runtime/cuda/kernels/route.h"

#include "runtime/cuda/kernels/choosing.h"
#include "runtime/cuda/kernels/chunk_sums.h"

namespace moesaic::kernels {

/// As SigmoidRow: x becomes the scores.
template <class T, int per_lane>
__device__ inline void score_by_sigmoid(const RouteChunk<T, per_lane>& of, i64 row, const Warp& warp,
                                        T (&x)[per_lane]) {
    T most = minus_infinity<T>(), sum = 0, exponentials = 0;
    for (int i = 0; i < per_lane; ++i) most = larger(most, x[i]);
    most = warp.largest(most);
    for (int i = 0; i < per_lane; ++i) {
        if (warp.lane + 32 * i >= of.columns) continue;
        exponentials += std::exp(x[i] - most);
        x[i] = sigmoid(x[i]);
        sum += x[i];
    }
    sum = warp.sum(sum);
    exponentials = warp.sum(exponentials);
    const T factor = T{1} / (sum + static_cast<T>(1e-20));
    write_columns(of.score + row * of.columns, of.columns, warp, x);
    T p[per_lane];
    for (int i = 0; i < per_lane; ++i) p[i] = x[i] * factor;
    write_columns(of.probability + row * of.columns, of.columns, warp, p);
    if (warp.lane == 0) of.log_sum_exp[row] = most + std::log(exponentials);
}

/// The weight of the lane's choice. As the operations in turn compute it: a softmax over the chosen logits,
/// or scores that are divided by their sum in ascending k.
template <class T, int per_lane>
__device__ inline T weight_of(const RouteChunk<T, per_lane>& of, i64 row, i32 column, const Warp& warp) {
    const bool chooses = warp.lane < of.choices;
    const T* const from = of.score ? of.score : of.over_choices ? of.logits : of.probability;
    T one[1] = {chooses ? from[row * of.columns + column] : minus_infinity<T>()};
    if (!of.over_choices) return one[0] * of.weight_scale;
    if (!of.score) {
        softmax_of(of.choices, warp, one);
        return one[0] * of.weight_scale;
    }
    T sum = 0;
    for (int k = 0; k < of.choices; ++k) sum += __shfl_sync(Warp::kAll, one[0], k);
    return one[0] * (of.weight_scale / (sum + static_cast<T>(1e-20)));
}

template <class T, int per_lane>
__device__ inline void route_token(const RouteChunk<T, per_lane>& of, i64 row, const Warp& warp) {
    using Rank = decltype(rank_of(T{}));
    T x[per_lane];
    Rank rank[per_lane];
    read_columns(of.logits + row * of.columns, of.columns, warp, x);
    const auto rank_with_bias = [&](T score, i32 column) {
        if (column >= of.columns) return Rank{0};
        return rank_of(of.bias ? score + of.bias[column] : score);
    };
    for (int i = 0; i < per_lane; ++i)  // used where choices are by_logits
        rank[i] = rank_with_bias(x[i], warp.lane + 32 * i);
    if (of.score) {
        score_by_sigmoid(of, row, warp, x);
    } else {
        const T total = softmax_of(of.columns, warp, x);
        write_columns(of.probability + row * of.columns, of.columns, warp, x);
        if (warp.lane == 0) of.log_sum_exp[row] = total;
    }
    warp.sync();  // other lanes read what this one wrote
    const T* const scores = (of.score ? of.score : of.probability) + row * of.columns;
    const int size = of.columns / of.groups;
    const i32* const is_top =
        of.top_groups < of.groups ? top_groups_of<kBlockWarps>(of, scores, size, warp) : nullptr;
    for (int i = 0; i < per_lane && !of.by_logits; ++i) {
        const i32 column = warp.lane + 32 * i;
        const bool out = is_top && column < of.columns && is_top[column / size] == 0;
        rank[i] = out ? rank_of(minus_infinity<T>()) : rank_with_bias(x[i], column);
    }
    i32 mine = 0;
    choose(of.choices, warp, rank, [&](i64, i32 column) { mine = column; });
    const T weight = weight_of(of, row, mine, warp);
    if (warp.lane >= of.choices) return;
    of.index[row * of.choices + warp.lane] = mine;
    of.weight[row * of.choices + warp.lane] = weight;
}

template <class T, int per_lane>
__device__ void RouteChunk<T, per_lane>::operator()(i64 number, const ThreadBlock& block) const {
    const TokenRange range = tokens_of(sums, number);
    for (i64 row = range.first + block.warp_number(); row < range.last; row += kBlockWarps)
        route_token(*this, row, block.warp());
    block.sync();
    sums(number, block);
}

// f64 is for checks, and goes operation by operation.
MOESAIC_EACH_BLOCK(RouteChunk<float, 1>);
MOESAIC_EACH_BLOCK(RouteChunk<float, 2>);
MOESAIC_EACH_BLOCK(RouteChunk<float, 4>);
MOESAIC_EACH_BLOCK(RouteChunk<float, 8>);

}  // namespace moesaic::kernels
