#include "runtime/cuda/kernels/loss.h"

#include "runtime/cuda/kernels/tile_kernels.h"

namespace moesaic::kernels {

template <class T>
__device__ inline T least_finite() {
    return sizeof(T) == 8 ? static_cast<T>(-1.7976931348623157e308) : static_cast<T>(-3.4028234663852886e38);
}

template <class T>
__device__ inline T row_maximum(const T* row, i64 columns, const Warp& warp) {
    T most = minus_infinity<T>();
    for (i64 i = warp.lane; i < columns; i += Warp::kSize) most = larger(most, row[i]);
    return warp.largest(most);
}

template <class T>
__device__ void SoftmaxRow<T>::operator()(i64 row, const Warp& warp) const {
    const T* const from = logits + row * columns;
    T* const to = probability + row * columns;
    const T maximum = row_maximum(from, columns, warp);
    T sum = 0;
    for (i64 i = warp.lane; i < columns; i += Warp::kSize) {
        const T power = std::exp(from[i] - maximum);
        to[i] = power;
        sum += power;
    }
    sum = warp.sum(sum);
    for (i64 i = warp.lane; i < columns; i += Warp::kSize) to[i] /= sum;
    if (warp.lane == 0) log_sum_exp[row] = maximum + std::log(sum);
}

/// The largest of some logits, and the sum of exp(logit - that).
template <class T>
struct ExponentialSum {
    T most;
    double sum;

    /// After which `most` is at least `other`.
    __device__ void rise(T other) {
        if (!(most < other)) return;
        sum *= static_cast<double>(std::exp(most - other));
        most = other;
    }
};

/// One pass: what was summed is scaled where a larger logit comes.
template <class T, bool are_whole>
template <class Threads>
__device__ void CrossEntropyRow<T, are_whole>::operator()(i64 row, const Threads& threads) const {
    constexpr int kBatch = sizeof(T) == 8 ? 1 : 4;  // quads on their way at once
    const T* const from = logits + row * columns;
    const i64 right = target[row], step = Threads::kSize * kQuad;
    // No logit is less than the least, minus infinity apart, whose exponential is 0 beside it.
    ExponentialSum<T> all{least_finite<T>(), 0};
    T other = minus_infinity<T>();  // the largest but the target's
    for (i64 begin = threads.lane * kQuad; begin < columns; begin += kBatch * step) {
        Quad<T> batch[kBatch] = {};
        GPU_UNROLL for (int turn = 0; turn < kBatch; ++turn) {
            const i64 first = begin + turn * step;
            if (first < columns) batch[turn] = load_quad<are_whole>(from + first, columns - first);
        }
        GPU_UNROLL for (int turn = 0; turn < kBatch; ++turn) {
            const i64 first = begin + turn * step;
            for (int i = 0; i < kQuad; ++i)
                if (first + i < columns) all.rise(batch[turn][i]);
            for (int i = 0; i < kQuad; ++i) {
                if (first + i >= columns) continue;
                all.sum += static_cast<double>(std::exp(batch[turn][i] - all.most));
                if (first + i != right) other = larger(other, batch[turn][i]);
            }
        }
    }
    all.rise(threads.largest(all.most));
    const double sum = threads.sum(all.sum);
    other = threads.largest(other);
    if (threads.lane != 0) return;
    const double total = static_cast<double>(all.most) + std::log(sum);
    log_sum_exp[row] = total;
    loss[row] = right < 0 ? 0.0 : total - static_cast<double>(from[right]);
    if (wrong) wrong[row] = right < 0 || from[right] >= all.most ? 0 : 1;
    if (margin)
        margin[row] = right < 0 ? HUGE_VAL : static_cast<double>(from[right]) - static_cast<double>(other);
}

template <class T, bool are_whole>
__device__ void CrossEntropyGradTile<T, are_whole>::operator()(const Tile& tile) const {
    const i64 column = tile.column * kQuad, room = columns - column, first = tile.row * columns + column;
    const i64 right = target[tile.row];
    if (right < 0) return store_quad<are_whole>(d_logits + first, room, zero_quad<T>());
    // Two parts, so that f32 logits are shifted by the f64 sum's full precision.
    const T coarse = static_cast<T>(log_sum_exp[tile.row]), factor = static_cast<T>(scale);
    const T remainder = static_cast<T>(log_sum_exp[tile.row] - static_cast<double>(coarse));
    const auto probability = [&](T logit) { return std::exp(logit - coarse - remainder) * factor; };
    if constexpr (are_whole) {
        Quad<T> gradient = load_quad<are_whole>(logits + first, room);
        set_each(gradient, [&](int i) { return probability(gradient[i]); });
        store_quad<are_whole>(d_logits + first, room, gradient);
    } else {  // one after the other: four exponentials in f64 would take too many registers
        GPU_KEEP_LOOP
        for (i64 i = first; i < first + smaller(room, kQuad); ++i) d_logits[i] = probability(logits[i]);
    }
    if (right >= column && right < column + kQuad) d_logits[tile.row * columns + right] -= factor;
}

template <class T>
__device__ void SquaredErrorRow<T>::operator()(i64 row) const {
    double sum = 0;
    for (i64 i = row * outputs; i < (row + 1) * outputs; ++i) {
        const double difference = static_cast<double>(output[i]) - target[i];
        sum += difference * difference;
    }
    loss[row] = sum / static_cast<double>(outputs);
}

template <class T>
__device__ void SquaredErrorGradElement<T>::operator()(i64 i) const {
    d_output[i] = static_cast<T>(factor * (static_cast<double>(output[i]) - target[i]));
}

MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, SoftmaxRow);
MOESAIC_FOR_REAL_QUADS(MOESAIC_EACH_ROW_OF, CrossEntropyRow);
MOESAIC_FOR_REAL_QUADS(MOESAIC_EACH_TILE, CrossEntropyGradTile);
MOESAIC_FOR_REALS(MOESAIC_EACH, SquaredErrorRow);
MOESAIC_FOR_REALS(MOESAIC_EACH, SquaredErrorGradElement);

}  // namespace moesaic::kernels
