// Row operations of attention between its products, compiled once per instruction set.
#pragma once

#include "runtime/base/types.h"

namespace moesaic {

/// Rows have room for whole vectors: up to kAttentionSlack elements behind `end` may be overwritten.
inline constexpr i64 kAttentionSlack = 16;

template <class T>
struct AttentionKernels {
    /// scores[0, valid) becomes exp(scale * score - max), [valid, end) becomes 0. Returns the log-sum-exp of
    /// the scaled scores and writes the sum of the exponentials.
    T (*exponentiate)(T* scores, i64 valid, i64 end, T scale, T* sum) = nullptr;
    /// scores[0, valid) becomes the probability p = exp(scale * score - log_sum_exp), and d_probability the
    /// gradient by the unscaled score, scale * p * (d_probability - delta); [valid, end) of both becomes 0.
    void (*softmax_backward)(T* scores, T* d_probability, i64 valid, i64 end, T scale, T log_sum_exp,
                             T delta) = nullptr;
    T (*dot)(const T* x, const T* y, i64 count) = nullptr;
    void (*multiply_by)(T* x, i64 count, T factor) = nullptr;
};

/// The kernels for this CPU; T is float or double.
template <class T>
[[nodiscard]] const AttentionKernels<T>& attention_kernels();

}  // namespace moesaic
