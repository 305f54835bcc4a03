#include "runtime/cuda/kernels/routing.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

/// Of (score, number) candidates that the lanes bring, the first in the order of choices, in every lane.
template <class T>
__device__ inline void first_choice(T& score, i32& number) {
    for (int distance = 16; distance > 0; distance /= 2) {
        const T other = __shfl_xor_sync(Warp::kAll, score, distance);
        const i32 other_number = __shfl_xor_sync(Warp::kAll, number, distance);
        const bool better =
            number < 0 || (other_number >= 0 && comes_before(other, other_number, score, number));
        if (other_number >= 0 && better) {
            score = other;
            number = other_number;
        }
    }
}

/// The best of a group, or its two best together.
template <class T>
__device__ inline T group_score(const TopKRow<T>& row, const T* scores, i64 group, i64 size) {
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

/// Whether fewer than top_groups groups come before `group`.
template <class T>
__device__ inline bool is_top_group(const TopKRow<T>& row, const T* group_scores, i64 group) {
    i64 before = 0;
    for (i64 other = 0; other < row.groups; ++other)
        before += comes_before(group_scores[other], other, group_scores[group], group) ? 1 : 0;
    return before < row.top_groups;
}

template <class T>
__device__ void TopKRow<T>::operator()(i64 row, const Warp& warp) const {
    GPU_SHARED(T, score_of_groups, kRowsPerBlock * kMostGroups);
    T* const group_scores = score_of_groups + threadIdx.x / 32 * kMostGroups;
    const T* const from = scores + row * columns;
    const bool limited = top_groups < groups;
    const i64 size = columns / groups;
    if (limited) {
        for (i64 group = warp.lane; group < groups; group += Warp::kSize)
            group_scores[group] = group_score(*this, from, group, size);
        warp.sync();
    }
    T last_score = 0;
    i32 last = -1;
    for (i64 k = 0; k < choices; ++k) {
        T best = 0;
        i32 chosen = -1;
        for (i64 i = warp.lane; i < columns; i += Warp::kSize) {
            T score = bias ? from[i] + bias[i] : from[i];
            if (limited && !is_top_group(*this, group_scores, i / size)) score = minus_infinity<T>();
            if (last >= 0 && !comes_before(last_score, last, score, i)) continue;  // chosen already
            if (chosen < 0 || comes_before(score, i, best, chosen)) {
                best = score;
                chosen = static_cast<i32>(i);
            }
        }
        first_choice(best, chosen);
        last_score = best;
        last = chosen;
        if (warp.lane == 0) {
            index[row * choices + k] = chosen;
            value[row * choices + k] = from[chosen];
        }
    }
}

template <class T>
__device__ void ChoiceElement<T>::operator()(i64 i) const {
    value[i] = index[i] < 0 ? T{0} : scores[i / choices * columns + index[i]];
}

template <class T>
__device__ void NormalizedRow<T>::operator()(i64 row) const {
    T sum = 0;
    for (i64 i = row * columns; i < (row + 1) * columns; ++i) sum += x[i];
    const T factor = scale / (sum + static_cast<T>(1e-20));
    for (i64 i = row * columns; i < (row + 1) * columns; ++i) x[i] *= factor;
}

__device__ void KeyCountElement::operator()(i64 i) const {
    const i64 first = i / groups * kKeysPerChunk, last = smaller(first + kKeysPerChunk, keys);
    i32 count = 0;
    for (i64 k = first; k < last; ++k) count += key[k] == i % groups ? 1 : 0;
    begin[i] = count;
}

__device__ void KeyBeginElement::operator()(i64 group) const {
    i32 sum = 0;
    for (i64 chunk = 0; chunk < chunks; ++chunk) {
        i32& here = begin[chunk * groups + group];
        const i32 count = here;
        here = sum;
        sum += count;
    }
    counts[group] = sum;
}

__device__ void KeyPlaceElement::operator()(i64 i) const {
    const i64 group = i % groups;
    const i64 first = i / groups * kKeysPerChunk, last = smaller(first + kKeysPerChunk, keys);
    i64 place = begin[i];
    for (i64 before = 0; before < group; ++before) place += counts[before];
    for (i64 k = first; k < last; ++k)
        if (key[k] == group) order[place++] = static_cast<i32>(k);
}

MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, TopKRow);
MOESAIC_FOR_REALS(MOESAIC_EACH, ChoiceElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, NormalizedRow);
MOESAIC_EACH(KeyCountElement);
MOESAIC_EACH(KeyBeginElement);
MOESAIC_EACH(KeyPlaceElement);

}  // namespace moesaic::kernels
