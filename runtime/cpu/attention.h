// Attention of consecutive sequences on the CPU: every sequence on its own, in blocks of query rows.
#pragma once

#include "runtime/cpu/thread_pool.h"

namespace moesaic {

struct AttentionShape {
    i64 rows = 0;  ///< T, a multiple of seq_len
    i64 heads = 0, kv_heads = 0, head_dim = 0, seq_len = 0;
    bool causal = true;  ///< else a row reads all keys of its sequence
};

/// Query head h reads key head h / (heads / kv_heads); scores are scaled by 1/sqrt(head_dim). A sequence's
/// bits depend neither on the other sequences nor on the threads.
template <class T>
struct SequenceAttention {
    AttentionShape shape;
    const T* q = nullptr;      // [T, heads*head_dim]
    const T* k = nullptr;      // [T, kv_heads*head_dim]
    const T* v = nullptr;      // [T, kv_heads*head_dim]
    T* out = nullptr;          // [T, heads*head_dim]
    T* log_sum_exp = nullptr;  // [heads, T]
    /// [T] or null: the first row whose key row t reads, where that is later than its sequence's first row;
    /// causal attention alone has it.
    const i32* first_key = nullptr;
};

template <class T>
void sequence_attention(ThreadPool& pool, const SequenceAttention<T>& attention);

/// dq, dk, dv are overwritten. dk and dv sum over the query heads of a key head in ascending order and over
/// the queries of a head in ascending order.
template <class T>
struct SequenceAttentionGrad {
    AttentionShape shape;
    const T *q = nullptr, *k = nullptr, *v = nullptr, *out = nullptr, *log_sum_exp = nullptr,
            *d_out = nullptr;
    T *dq = nullptr, *dk = nullptr, *dv = nullptr;
    const i32* first_key = nullptr;
};

template <class T>
void sequence_attention_backward(ThreadPool& pool, const SequenceAttentionGrad<T>& grad);

}  // namespace moesaic
