#include "runtime/cuda/kernels/router.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

/// Calls add(k, column) for each of a row's choices, in every lane.
template <class Add>
__device__ inline void each_choice(const i32* index, int choices, const Warp& warp, const Add& add) {
    for (int first = 0; first < choices; first += 32) {
        const int here = smaller(32, choices - first);
        const i32 mine = warp.lane < here ? index[first + warp.lane] : -1;
        for (int k = 0; k < here; ++k) add(first + k, __shfl_sync(Warp::kAll, mine, k));
    }
}

/// Of kTile columns at once, which lanes hold as choosing.h says.
template <class T, int per_lane>
__device__ void RouterGradRows<T, per_lane>::operator()(i64 number, const ThreadBlock& block) const {
    constexpr int kTile = 32 * per_lane;
    const Warp warp = block.warp();
    const i64 row = number * kBlockWarps + block.warp_number();
    if (row >= rows) return;
    const T* const p = probability + row * experts;
    T* const out = d_logits + row * experts;
    const T* const logits = sigmoid_logits ? sigmoid_logits + row * experts : nullptr;
    const i32* const chosen = index + row * choices;
    const T *const w = weight + row * choices, *const dw = d_weight + row * choices;
    const double* const factors =
        balance_factor ? balance_factor + (one_factor ? 0 : row / rows_per_object * experts) : nullptr;
    const bool through_scores = !over_choices && !logits;  // d_weight acts through p
    T over = 0;                                            // <d, w> / c
    for (int k = warp.lane; over_choices && k < choices; k += 32)
        if (chosen[k] >= 0) over += w[k] * dw[k];
    over = warp.sum(over) * inverse_weight_scale;

    T g[per_lane], q[per_lane];  // the derivative by p, and p
    const auto read_tile = [&](int first) {
        for (int i = 0; i < per_lane; ++i) {
            const int e = first + warp.lane + 32 * i;
            g[i] = factors && e < experts ? static_cast<T>(factors[e]) : T{0};
            q[i] = e < experts ? p[e] : T{0};
        }
        if (!through_scores) return;
        each_choice(chosen, choices, warp, [&](int k, i32 column) {
            const T more = weight_scale * dw[k];
            for (int i = 0; i < per_lane; ++i)
                if (column == first + warp.lane + 32 * i) g[i] += more;
        });
    };
    T mean = 0;  // <g, p>
    for (int first = 0; first < experts; first += kTile) {
        read_tile(first);
        for (int i = 0; i < per_lane; ++i) mean += g[i] * q[i];
    }
    mean = warp.sum(mean);
    const T l = log_sum_exp[row], z = static_cast<T>(2 * z_scale) * l;
    for (int first = 0; first < experts; first += kTile) {
        if (experts > kTile) read_tile(first);
        T rest[per_lane];  // 1 - s
        for (int i = 0; i < per_lane; ++i) {
            const int e = first + warp.lane + 32 * i;
            const T x = logits && e < experts ? logits[e] : T{0};
            rest[i] = logits ? sigmoid(-x) : T{1};
            const T pull = logits ? z * std::exp(x - l) : z;
            g[i] = logits ? q[i] * (g[i] - mean) * rest[i] + pull : q[i] * (g[i] - mean + pull);
        }
        if (!through_scores) {
            each_choice(chosen, choices, warp, [&](int k, i32 column) {
                const T slope = w[k] * (dw[k] - over);
                for (int i = 0; i < per_lane; ++i)
                    if (column == first + warp.lane + 32 * i) g[i] += rest[i] * slope;
            });
        }
        for (int i = 0; i < per_lane; ++i)
            if (first + warp.lane + 32 * i < experts) out[first + warp.lane + 32 * i] = g[i];
    }
}

template <class T>
__device__ void AddByChoiceElement<T>::operator()(i64 i) const {
    const i64 object = one_factor ? 0 : i / choices / rows_per_object;
    if (index[i] >= 0) d_weight[i] += static_cast<T>(factor[object * experts + index[i]]);
}

MOESAIC_EACH_BLOCK(RouterGradRows<double, 1>);
MOESAIC_EACH_BLOCK(RouterGradRows<double, 2>);
MOESAIC_EACH_BLOCK(RouterGradRows<float, 1>);
MOESAIC_EACH_BLOCK(RouterGradRows<float, 2>);
MOESAIC_EACH_BLOCK(RouterGradRows<float, 4>);
MOESAIC_EACH_BLOCK(RouterGradRows<float, 8>);
MOESAIC_FOR_REALS(MOESAIC_EACH, AddByChoiceElement);

}  // namespace moesaic::kernels
