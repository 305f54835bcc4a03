#include "runtime/cuda/kernels/router.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

template <class T>
__device__ inline i64 most_probable(const T* probability, i64 experts) {
    i64 best = 0;
    for (i64 e = 1; e < experts; ++e)
        if (probability[best] < probability[e]) best = e;
    return best;
}

template <class T>
__device__ void RouterSumElement<T>::operator()(i64 i) const {
    const i64 expert = i % experts, first = i / experts * rows_per_object;
    const i64 last = smaller(first + rows_per_object, tokens);
    i64 count = 0, balance_count = 0;
    double probabilities = 0, weights = 0, loads = 0;
    for (i64 row = first; row < last; ++row) {
        if (probability) probabilities += static_cast<double>(probability[row * experts + expert]);
        if (load_probability) loads += static_cast<double>(load_probability[row * experts + expert]);
        for (i64 choice = row * choices; choice < (row + 1) * choices; ++choice) {
            if (index[choice] != expert) continue;
            ++count;
            weights += static_cast<double>(weight[choice]);
        }
        if (counted == Counted::first) balance_count += index[row * choices] == expert ? 1 : 0;
        if (counted == Counted::most_probable && probability)
            balance_count += most_probable(probability + row * experts, experts) == expert ? 1 : 0;
    }
    counts[i] = count;
    balance_counts[i] = counted == Counted::all ? count : balance_count;
    probability_sum[i] = probabilities;
    weight_sum[i] = weights;
    load_sum[i] = loads;
}

template <class T>
__device__ void RouterZSumElement<T>::operator()(i64 object) const {
    const i64 first = object * rows_per_object, last = smaller(first + rows_per_object, tokens);
    double sum = 0;
    for (i64 row = first; log_sum_exp && row < last; ++row) {
        const auto value = static_cast<double>(log_sum_exp[row]);
        sum += value * value;
    }
    z_sum[object] = sum;
}

template <class T>
__device__ void RouterGradRow<T>::operator()(i64 row, const Warp& warp) const {
    const T* const p = probability + row * experts;
    const T* const logits = sigmoid_logits ? sigmoid_logits + row * experts : nullptr;
    const i64 begin = row * choices;
    const double* const factors =
        balance_factor ? balance_factor + (one_factor ? 0 : row / rows_per_object * experts) : nullptr;
    const bool through_scores = !over_choices && !logits;  // d_weight acts through p
    T over = 0;                                            // <d, w> / c
    for (i64 k = begin; over_choices && k < begin + choices; ++k)
        if (index[k] >= 0) over += weight[k] * d_weight[k];
    over *= inverse_weight_scale;
    const auto factor_of = [&](i64 e) {
        T g = factors ? static_cast<T>(factors[e]) : T{0};
        for (i64 k = begin; through_scores && k < begin + choices; ++k)
            if (index[k] == e) g += weight_scale * d_weight[k];
        return g;
    };
    T mean = 0;  // <g, p>
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) mean += factor_of(e) * p[e];
    mean = warp.sum(mean);
    const T l = log_sum_exp[row], z = static_cast<T>(2 * z_scale) * l;
    for (i64 e = warp.lane; e < experts; e += Warp::kSize) {
        const T rest = logits ? sigmoid(-logits[e]) : T{1};  // 1 - s
        const T pull = logits ? z * std::exp(logits[e] - l) : z;
        const T g = factor_of(e);
        T d = logits ? p[e] * (g - mean) * rest + pull : p[e] * (g - mean + pull);
        for (i64 k = begin; !through_scores && k < begin + choices; ++k) {
            if (index[k] != e) continue;
            d += rest * weight[k] * (d_weight[k] - over);
        }
        d_logits[row * experts + e] = d;
    }
}

template <class T>
__device__ void ConfidenceRow<T>::operator()(i64 part, const Warp& warp) const {
    const i64 first = part * rows_per_part, last = smaller(first + rows_per_part, tokens);
    double entropy = 0, first_weight = 0;
    for (i64 row = first; row < last; ++row) {
        double terms = 0;
        for (i64 i = row * experts + warp.lane; i < (row + 1) * experts; i += Warp::kSize) {
            const T one = probability[i];
            if (one > 0) terms -= static_cast<double>(one) * static_cast<double>(std::log(one));
        }
        entropy += warp.sum(terms);
        first_weight += static_cast<double>(weight[row * choices]);
    }
    if (warp.lane != 0) return;
    entropy_sum[part] = entropy;
    first_weight_sum[part] = first_weight;
}

template <class T>
__device__ void AddByChoiceElement<T>::operator()(i64 i) const {
    const i64 object = one_factor ? 0 : i / choices / rows_per_object;
    if (index[i] >= 0) d_weight[i] += static_cast<T>(factor[object * experts + index[i]]);
}

template <class T>
__device__ void LimitElement<T>::operator()(i64 i) const {
    const i32 expert = index[i];
    kept[i] = expert;
    if (expert < 0) return;
    const i64 object = i / choices / rows_per_object, first = object * rows_per_object * choices;
    const i64 last = smaller(first + rows_per_object * choices, tokens * choices);
    const auto score = [&](i64 choice) {
        return priority ? priority[choice / choices * experts + expert] : T{0};
    };
    i64 before = 0;
    for (i64 other = first; other < last; ++other)
        if (index[other] == expert && comes_before(score(other), other, score(i), i)) ++before;
    if (before >= capacity) kept[i] = -1;
}

template <class T>
struct WeightSums {
    T all, kept;
};
template <class T>
__device__ inline WeightSums<T> sum_weights(const T* weight, const i32* index, const i32* kept, i64 choices) {
    WeightSums<T> sums{0, 0};
    for (i64 k = 0; k < choices; ++k) {
        if (index[k] >= 0) sums.all += weight[k];
        if (kept[k] >= 0) sums.kept += weight[k];
    }
    return sums;
}

template <class T>
__device__ void RescaleElement<T>::operator()(i64 i) const {
    const i64 first = i / choices * choices;
    const WeightSums<T> sums = sum_weights(weight + first, index + first, kept + first, choices);
    // Nothing dropped: exactly 1, so that weights keep their bits.
    const T factor = sums.kept == 0 ? T{0} : sums.all / sums.kept;
    out[i] = kept[i] >= 0 ? weight[i] * factor : T{0};
}

/// With s and r as in backend.h and D = sum over kept j of d_j w_j: d out_j / d w_i sums to
/// [i kept] (d_i s/r - D s/r^2) + D/r.
template <class T>
__device__ void RescaleGradRow<T>::operator()(i64 row) const {
    const i64 first = row * choices;
    const WeightSums<T> sums = sum_weights(weight + first, index + first, kept + first, choices);
    T product = 0;  // D
    for (i64 k = first; k < first + choices; ++k)
        if (kept[k] >= 0) product += d_out[k] * weight[k];
    const T scale = sums.kept == 0 ? T{0} : T{1} / sums.kept, factor = sums.all * scale,
            mean = product * scale;
    for (i64 k = first; k < first + choices; ++k) {
        T d = index[k] >= 0 ? mean : T{0};
        if (kept[k] >= 0) d += factor * (d_out[k] - mean);
        d_weight[k] = d;
    }
}

MOESAIC_FOR_REALS(MOESAIC_EACH, RouterSumElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, RouterZSumElement);
MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, RouterGradRow);
MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, ConfidenceRow);
MOESAIC_FOR_REALS(MOESAIC_EACH, AddByChoiceElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, LimitElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, RescaleElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, RescaleGradRow);

}  // namespace moesaic::kernels
