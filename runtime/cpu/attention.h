// Attention of consecutive sequences on the CPU: every sequence on its own, in blocks of query rows.
#pragma once

#include "runtime/cpu/element_types.h"
#include "runtime/cpu/thread_pool.h"

namespace moesaic {

struct AttentionShape {
    i64 rows = 0;  ///< T, a multiple of seq_len
    i64 heads = 0, kv_heads = 0, head_dim = 0, seq_len = 0;
    bool causal = true;  ///< else a row reads all keys of its sequence
};

/// Query head h reads key head h / (heads / kv_heads); scores are scaled by 1/sqrt(head_dim). A sequence's
/// bits depend neither on the other sequences nor on the threads. Stored is float, double or BFloat16: the
/// last is widened as it is read, and results are rounded once; by tiles as attention_tiles.h says.
template <class Stored>
struct SequenceAttention {
    AttentionShape shape;
    const Stored* q = nullptr;                     // [T, heads*head_dim]
    const Stored* k = nullptr;                     // [T, kv_heads*head_dim]
    const Stored* v = nullptr;                     // [T, kv_heads*head_dim]
    Stored* out = nullptr;                         // [T, heads*head_dim]
    cpu::RealType<Stored>* log_sum_exp = nullptr;  // [heads, T]
    /// [T] or null: the first row whose key row t reads, where that is later than its sequence's first row;
    /// causal attention alone has it.
    const i32* first_key = nullptr;
};

template <class Stored>
void sequence_attention(ThreadPool& pool, const SequenceAttention<Stored>& attention);

/// dq, dk, dv are overwritten. dk and dv sum over the query heads of a key head in ascending order and over
/// the queries of a head in ascending order.
template <class Stored>
struct SequenceAttentionGrad {
    AttentionShape shape;
    const Stored *q = nullptr, *k = nullptr, *v = nullptr, *out = nullptr;
    const cpu::RealType<Stored>* log_sum_exp = nullptr;
    const Stored* d_out = nullptr;
    Stored *dq = nullptr, *dk = nullptr, *dv = nullptr;
    const i32* first_key = nullptr;
};

template <class Stored>
void sequence_attention_backward(ThreadPool& pool, const SequenceAttentionGrad<Stored>& grad);

}  // namespace moesaic
