// Row operations of attention between its products, compiled once per instruction set.
#pragma once

#include "runtime/base/types.h"
#include "runtime/cpu/tile_products.h"
#include "runtime/tensor.h"

namespace moesaic {

/// Rows have room for whole vectors: up to kAttentionSlack elements behind `end` may be overwritten. Also a
/// multiple of every vector's lanes: sums depend on where a row begins modulo this.
inline constexpr i64 kAttentionSlack = 16;

/// A row of `end` scores, of which those of keys [first, valid) count; first < valid <= end.
struct KeyRange {
    i64 first = 0, valid = 0, end = 0;
};

template <class T>
struct AttentionKernels {
    /// scores[first, valid) becomes exp(scale * score - max), [0, first) and [valid, end) become 0. Returns
    /// the log-sum-exp of the scaled scores and writes the sum of the exponentials.
    T (*exponentiate)(T* scores, KeyRange keys, T scale, T* sum) = nullptr;
    /// scores[first, valid) becomes the probability p = exp(scale * score - log_sum_exp), and d_probability
    /// the gradient by the unscaled score, scale * p * (d_probability - delta); [0, first) and [valid, end)
    /// of both become 0.
    void (*softmax_backward)(T* scores, T* d_probability, KeyRange keys, T scale, T log_sum_exp,
                             T delta) = nullptr;
    T (*dot)(const T* x, const T* y, i64 count) = nullptr;
    void (*multiply_by)(T* x, i64 count, T factor) = nullptr;
};

/// The kernels for this CPU; T is float or double.
template <class T>
[[nodiscard]] const AttentionKernels<T>& attention_kernels();

/// Rows, and columns, of attention that tiles multiply together.
constexpr i64 kTileSide = 2 * kTileRows;
static_assert(kTileSide == 2 * kTileValues && kTileSide == kAddendsOfTiles);

/// A square of scores, keys by queries, each kTileSide, and what their gradients need.
struct TileSoftmax {
    const float* scores = nullptr;                         ///< [keys, queries], unscaled
    const float* d_probabilities = nullptr;                ///< [keys, queries]
    i64 key = 0;                                           ///< the first key's number
    const i32 *first_key = nullptr, *last_key = nullptr;   ///< [queries] the keys that count for each
    const float *log_sum_exp = nullptr, *delta = nullptr;  ///< [queries]
    float scale = 1;
    // Results, rounded to bf16: row_stride elements from key to key, and the latter once more as pairs of
    // two keys, [keys / 2, queries].
    BFloat16 *probabilities = nullptr, *d_scores = nullptr;
    i64 row_stride = 0;
    float* d_score_pairs = nullptr;
};

/// For products by tiles (TileProduct), whose pairs have their first in the lower half.
struct TileAttentionKernels {
    /// As AttentionKernels::exponentiate, but an exponential becomes a pair of bf16 that add up to it, about:
    /// its upper 8 bits, and what they leave, rounded to as many.
    float (*exponentiate_in_parts)(float* scores, KeyRange keys, float scale, float* sum) = nullptr;
    /// As AttentionKernels::softmax_backward; what does not count becomes 0.
    void (*softmax_backward)(const TileSoftmax&) = nullptr;
    /// As AttentionKernels::dot of the numbers widened.
    float (*dot)(const BFloat16* x, const BFloat16* y, i64 count) = nullptr;
};
[[nodiscard]] const TileAttentionKernels& tile_attention_kernels();

}  // namespace moesaic
