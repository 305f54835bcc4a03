#include "runtime/cuda/kernels/router.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

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
__device__ void AddByChoiceElement<T>::operator()(i64 i) const {
    const i64 object = one_factor ? 0 : i / choices / rows_per_object;
    if (index[i] >= 0) d_weight[i] += static_cast<T>(factor[object * experts + index[i]]);
}

MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, RouterGradRow);
MOESAIC_FOR_REALS(MOESAIC_EACH, AddByChoiceElement);

}  // namespace moesaic::kernels
