#include "runtime/cuda/kernels/loss.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

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

template <class T>
__device__ void CrossEntropyRow<T>::operator()(i64 row, const Warp& warp) const {
    const T* const from = logits + row * columns;
    const i64 right = target[row];
    const T maximum = row_maximum(from, columns, warp);
    double sum = 0;
    T other = minus_infinity<T>();  // the largest but the target's
    for (i64 i = warp.lane; i < columns; i += Warp::kSize) {
        sum += static_cast<double>(std::exp(from[i] - maximum));
        if (i != right) other = larger(other, from[i]);
    }
    sum = warp.sum(sum);
    other = warp.largest(other);
    if (warp.lane != 0) return;
    const double total = static_cast<double>(maximum) + std::log(sum);
    log_sum_exp[row] = total;
    loss[row] = right < 0 ? 0.0 : total - static_cast<double>(from[right]);
    if (wrong) wrong[row] = right < 0 || from[right] >= maximum ? 0 : 1;
    if (margin)
        margin[row] = right < 0 ? HUGE_VAL : static_cast<double>(from[right]) - static_cast<double>(other);
}

template <class T>
__device__ void CrossEntropyGradElement<T>::operator()(i64 i) const {
    const i64 row = i / columns;
    if (target[row] < 0) {
        d_logits[i] = 0;
        return;
    }
    // Two parts, so that f32 logits are shifted by the f64 sum's full precision.
    const T coarse = static_cast<T>(log_sum_exp[row]);
    const T remainder = static_cast<T>(log_sum_exp[row] - static_cast<double>(coarse));
    const T probability = std::exp(logits[i] - coarse - remainder);
    const T factor = static_cast<T>(scale), value = probability * factor;
    d_logits[i] = target[row] == i % columns ? value - factor : value;
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
MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, CrossEntropyRow);
MOESAIC_FOR_REALS(MOESAIC_EACH, CrossEntropyGradElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, SquaredErrorRow);
MOESAIC_FOR_REALS(MOESAIC_EACH, SquaredErrorGradElement);

}  // namespace moesaic::kernels
