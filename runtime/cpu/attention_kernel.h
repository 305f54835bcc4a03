// Row operations of attention between its products, compiled once per instruction set.
#pragma once

#include "runtime/base/types.h"

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

}  // namespace moesaic
