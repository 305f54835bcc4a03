#include "runtime/cuda/kernels/capacity.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

__device__ void RivalKeyElement::operator()(i64 i) const {
    const i32 expert = index[i];
    key[i] = expert < 0 ? -1 : static_cast<i32>(i / choices / rows_per_object * experts + expert);
    order[i] = -1;
    kept[i] = expert;
}

template <class T>
__device__ void RivalPriorityElement<T>::operator()(i64 i) const {
    const i32 choice = order[i];
    if (choice >= 0) sorted[i] = priority[choice / choices * experts + index[choice]];
}

/// Places of rivals are in the order of their choices, so that equal ones rank by place.
template <class T>
__device__ void LimitElement<T>::operator()(i64 i) const {
    const i32 choice = order[i];
    if (choice < 0) return;
    const i64 first = first_place[key[choice]];
    i64 before = i - first;
    if (sorted) {
        const i64 last = first + rivals[key[choice]];
        const T mine = sorted[i];
        before = 0;
        for (i64 other = first; other < last; ++other)
            before += comes_before(sorted[other], other, mine, i) ? 1 : 0;
    }
    if (before >= capacity) kept[choice] = -1;
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

MOESAIC_EACH(RivalKeyElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, RivalPriorityElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, LimitElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, RescaleElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, RescaleGradRow);

}  // namespace moesaic::kernels
