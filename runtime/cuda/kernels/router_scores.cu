#include "runtime/cuda/kernels/router_scores.h"

#include "runtime/cuda/kernels/columns.h"

namespace moesaic::kernels {

constexpr double kTiny = 1e-300;  // an expert that nobody can take divides by it once

template <class T>
__device__ inline T softplus(T x) {
    return larger(x, T{0}) + std::log1p(std::exp(x < 0 ? x : -x));
}

template <class T>
__device__ void SigmoidRow<T>::operator()(i64 row, const Warp& warp) const {
    const T* const from = logits + row * experts;
    T most = minus_infinity<T>();
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) most = larger(most, from[e]);
    most = warp.largest(most);
    T sum = 0, exponentials = 0;
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) {
        score[row * experts + e] = sigmoid(from[e]);
        sum += sigmoid(from[e]);
        exponentials += std::exp(from[e] - most);
    }
    sum = warp.sum(sum);
    exponentials = warp.sum(exponentials);
    const T factor = T{1} / (sum + static_cast<T>(1e-20));
    for (i64 e = warp.lane; e < experts; e += Warp::kSize)
        probability[row * experts + e] = score[row * experts + e] * factor;
    if (warp.lane == 0) log_sum_exp[row] = most + std::log(exponentials);
}

/// Row maxima are subtracted: a factor of a row is one that the iteration absorbs.
template <class T>
__device__ void SinkhornPowerRow<T>::operator()(i64 row, const Warp& warp) const {
    const T* const from = logits + row * experts;
    T most = minus_infinity<T>();
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) most = larger(most, from[e]);
    most = warp.largest(most);
    for (i64 e = warp.lane; e < experts; e += Warp::kSize)
        work[row * experts + e] = std::exp(static_cast<double>(from[e]) - static_cast<double>(most));
}

__device__ void SinkhornFactorRow::operator()(i64 row, const Warp& warp) const {
    const double* const columns = column + row / rows_per_object * experts;
    double mass = 0;
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) mass += columns[e] * work[row * experts + e];
    mass = warp.sum(mass);
    if (warp.lane == 0) factor[row] = 1 / larger(mass, kTiny);
}

__device__ void SinkhornColumnPart::operator()(i64 number, const ThreadBlock& block) const {
    const i64 object = number / tiles, first = object * rows_per_object;
    const i64 last = smaller(first + rows_per_object, tokens);
    const i64 expert = number % tiles * kColumnsOfBlock + block.thread % kColumnsOfBlock;
    const double sum = sum_down_columns(first, last, block, [&](i64 row) {
        return expert < experts ? factor[row] * work[row * experts + expert] : 0.0;
    });
    if (block.thread >= kColumnsOfBlock || expert >= experts) return;
    column[object * experts + expert] =
        static_cast<double>(last - first) / static_cast<double>(experts) / larger(sum, kTiny);
}

template <class T>
__device__ void SinkhornScoreElement<T>::operator()(i64 i) const {
    const double offset = std::log(column[i / experts / rows_per_object * experts + i % experts]);
    scores[i] = static_cast<T>(static_cast<double>(logits[i]) + offset);
}

template <class T>
__device__ void NoisyLogitElement<T>::operator()(i64 i) const {
    logits[i] = clean[i] + noise[i] * softplus(spread[i]);
}

template <class T>
__device__ void NoisyLogitGradElement<T>::operator()(i64 i) const {
    d_clean[i] += d_logits[i];
    d_spread[i] += d_logits[i] * noise[i] * sigmoid(spread[i]);
}

/// The expert whose logit expert e has to beat: the K-th best of the others.
__device__ inline i32 rival_of(i64 e, const i32* ranked, i64 choices) {
    for (i64 k = 0; k < choices; ++k)
        if (ranked[k] == e) return ranked[choices];
    return ranked[choices - 1];
}

/// By how many deviations a logit beats its rival's; 0 of a tie, also without noise.
template <class T>
__device__ T lead(T clean, T rival, T deviation) {
    return clean == rival ? 0 : (clean - rival) / deviation;
}

template <class T>
__device__ constexpr T smallest_normal() {
    return static_cast<T>(sizeof(T) == sizeof(float) ? 1.1754943508222875e-38 : 2.2250738585072014e-308);
}

template <class T>
__device__ void NoisyLoadElement<T>::operator()(i64 i) const {
    const i64 row = i / experts;
    const i32 rival = rival_of(i % experts, ranked + row * (choices + 1), choices);
    const T z = lead(clean[i], logits[row * experts + rival], softplus(spread[i]));
    probability[i] = std::erfc(-z / static_cast<T>(1.4142135623730951)) / 2;
}

template <class T>
__device__ void NoisyLoadGradRow<T>::operator()(i64 row, const Warp& warp) const {
    const i64 object = one_factor ? 0 : row / rows_per_object, first = row * experts;
    const i32* const best = ranked + row * (choices + 1);
    T of_last = 0, of_next = 0;  // what the rivals of those without and with a choice get
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) {
        const i32 rival = rival_of(e, best, choices);
        const T deviation = softplus(spread[first + e]);
        const T z = lead(clean[first + e], logits[first + rival], deviation);
        const T density = static_cast<T>(0.3989422804014327) * std::exp(-z * z / 2);
        // No noise, no slope: the load is a step. Far from it 0 would meet an infinity.
        if (deviation < smallest_normal<T>() || density == 0) continue;
        const T slope = static_cast<T>(factor[object * experts + e]) * density / deviation;
        d_clean[first + e] += slope;
        d_spread[first + e] -= slope * z * sigmoid(spread[first + e]);
        (rival == best[choices] ? of_next : of_last) += slope;
    }
    of_last = warp.sum(of_last);
    of_next = warp.sum(of_next);
    if (warp.lane != 0) return;
    d_logits[first + best[choices - 1]] -= of_last;
    d_logits[first + best[choices]] -= of_next;
}

template <class Stored>
__device__ void PrototypeElement<Stored>::operator()(i64 i) const {
    const Stored *const a = x + i / experts * width, *const b = prototype + i % experts * width;
    Real<Stored> sum = 0;
    for (i64 j = 0; j < width; ++j) {
        const Real<Stored> difference = read(a[j]) - read(b[j]);
        sum += difference * difference;
    }
    logits[i] = -sum;
}

template <class Stored>
__device__ void PrototypeInputGradElement<Stored>::operator()(i64 i) const {
    const i64 row = i / width, column = i % width;
    Real<Stored> sum = 0;
    for (i64 e = 0; e < experts; ++e)
        sum += d_logits[row * experts + e] * (read(x[i]) - read(prototype[e * width + column]));
    write(dx[i], read(dx[i]) - 2 * sum);
}

template <class Stored>
__device__ void PrototypeGradElement<Stored>::operator()(i64 i) const {
    const i64 expert = i / width, column = i % width;
    Real<Stored> sum = d_prototype[i];
    for (i64 row = 0; row < rows; ++row)
        sum += 2 * d_logits[row * experts + expert] * (read(x[row * width + column]) - read(prototype[i]));
    d_prototype[i] = sum;
}

template <class T>
__device__ void BalanceBiasRow<T>::operator()(i64, const Warp& warp) const {
    i64 total = 0;
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) total += counts[e];
    total = warp.sum(total);
    double sum = 0;
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) {
        // Whole numbers, so that an expert with exactly the mean load stays where it is.
        const i64 missing = total - experts * counts[e];
        const double sign = missing > 0 ? 1 : missing < 0 ? -1 : 0;
        bias[e] = static_cast<T>(static_cast<double>(bias[e]) + rate * sign);
        sum += static_cast<double>(bias[e]);
    }
    const double mean = warp.sum(sum) / static_cast<double>(experts);
    for (i64 e = warp.lane; recentre && e < experts; e += Warp::kSize)
        bias[e] = static_cast<T>(static_cast<double>(bias[e]) - mean);
}

MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, SigmoidRow);
MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, SinkhornPowerRow);
MOESAIC_EACH_ROW(SinkhornFactorRow);
MOESAIC_EACH_BLOCK(SinkhornColumnPart);
MOESAIC_FOR_REALS(MOESAIC_EACH, SinkhornScoreElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, NoisyLogitElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, NoisyLogitGradElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, NoisyLoadElement);
MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, NoisyLoadGradRow);
MOESAIC_FOR_STORED(MOESAIC_EACH, PrototypeElement);
MOESAIC_FOR_STORED(MOESAIC_EACH, PrototypeInputGradElement);
MOESAIC_FOR_STORED(MOESAIC_EACH, PrototypeGradElement);
MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, BalanceBiasRow);

}  // namespace moesaic::kernels
