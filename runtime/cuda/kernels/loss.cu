#include "runtime/cuda/kernels/loss.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

/// The threads of one row: a warp or a block.
template <int warps>
struct Team {
    int thread;
    static constexpr int kThreads = 32 * warps;

    /// Of all threads' values, in all of them: `combine` in a tree of fixed shape.
    template <class V, class Combine>
    __device__ V all(V value, const Combine& combine) const {
        for (int distance = 16; distance > 0; distance /= 2)
            value = combine(value, __shfl_xor_sync(Warp::kAll, value, distance));
        if constexpr (warps > 1) {
            GPU_SHARED(V, of_warp, warps);
            __syncthreads();
            if (thread % 32 == 0) of_warp[thread / 32] = value;
            __syncthreads();
            value = of_warp[0];
            for (int i = 1; i < warps; ++i) value = combine(value, of_warp[i]);
        }
        return value;
    }
};

/// One pass: the sum is of powers of e by the largest logit so far, which is a row's in the end.
template <class T, int warps>
__device__ inline void cross_entropy(const CrossEntropyRow<T>& of, i64 row, const Team<warps>& team) {
    constexpr int kAtOnce = 32 / static_cast<int>(sizeof(T));
    const T* const from = of.logits + row * of.columns;
    const i64 right = of.target[row];
    T most = minus_infinity<T>(), other = most;  // the latter but the target's
    double sum = 0;
    for (i64 first = team.thread; first < of.columns; first += kAtOnce * team.kThreads) {
        T x[kAtOnce], now = most;
        for (int i = 0; i < kAtOnce; ++i) {
            const i64 column = first + i * team.kThreads;
            x[i] = column < of.columns ? from[column] : minus_infinity<T>();
            now = larger(now, x[i]);
            if (column != right) other = larger(other, x[i]);
        }
        if (now > most) sum *= std::exp(static_cast<double>(most) - static_cast<double>(now));
        most = now;
        const T shift = most == minus_infinity<T>() ? T{0} : most;
        for (int i = 0; i < kAtOnce; ++i) sum += static_cast<double>(std::exp(x[i] - shift));
    }
    const auto larger_of = [](T a, T b) { return larger(a, b); };
    const T maximum = team.all(most, larger_of);
    if (most < maximum) sum *= std::exp(static_cast<double>(most) - static_cast<double>(maximum));
    sum = team.all(sum, [](double a, double b) { return a + b; });
    other = team.all(other, larger_of);
    if (team.thread != 0) return;
    const double total = static_cast<double>(maximum) + std::log(sum);
    of.log_sum_exp[row] = total;
    of.loss[row] = right < 0 ? 0.0 : total - static_cast<double>(from[right]);
    if (of.wrong) of.wrong[row] = right < 0 || from[right] > other ? 0 : 1;
    if (of.margin)
        of.margin[row] = right < 0 ? HUGE_VAL : static_cast<double>(from[right]) - static_cast<double>(other);
}

template <class T>
__device__ void CrossEntropyRow<T>::operator()(i64 row, const Warp& warp) const {
    cross_entropy(*this, row, Team<1>{warp.lane});
}
template <class T>
__device__ void CrossEntropyRow<T>::operator()(i64 row, const ThreadBlock& block) const {
    cross_entropy(*this, row, Team<kBlockWarps>{block.thread});
}

template <class T>
__device__ void CrossEntropyGradPart<T>::operator()(i64 number, const ThreadBlock& block) const {
    constexpr int kAtOnce = static_cast<int>(kGradColumns) / kBlockThreads;
    const i64 row = number / parts, first = number % parts * kGradColumns + block.thread;
    const T* const from = logits + row * columns;
    T* const to = d_logits + row * columns;
    const i64 right = target[row];
    // Two parts, so that f32 logits are shifted by the f64 sum's full precision.
    const T coarse = static_cast<T>(log_sum_exp[row]);
    const T remainder = static_cast<T>(log_sum_exp[row] - static_cast<double>(coarse));
    const T factor = static_cast<T>(scale);
    T x[kAtOnce];
    for (int i = 0; i < kAtOnce; ++i) {
        const i64 column = first + i * kBlockThreads;
        x[i] = column < columns ? from[column] : T{0};
    }
    for (int i = 0; i < kAtOnce; ++i) {
        const i64 column = first + i * kBlockThreads;
        if (column >= columns) return;
        const T value = std::exp(x[i] - coarse - remainder) * factor;
        to[column] = right < 0 ? T{0} : right == column ? value - factor : value;
    }
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

MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, CrossEntropyRow);
MOESAIC_FOR_REALS(MOESAIC_EACH_BLOCK, CrossEntropyRow);
MOESAIC_FOR_REALS(MOESAIC_EACH_BLOCK, CrossEntropyGradPart);
MOESAIC_FOR_REALS(MOESAIC_EACH, SquaredErrorRow);
MOESAIC_FOR_REALS(MOESAIC_EACH, SquaredErrorGradElement);

}  // namespace moesaic::kernels
