// Attention forward and backward: one task per sequence and head (backward: key head).
#include "runtime/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/cpu/attention_blocks.h"
#include "runtime/cpu/attention_kernel.h"
#include "runtime/cpu/scratch.h"

namespace moesaic {
namespace {

void check(const AttentionShape& shape) {
    MOESAIC_ASSERT(shape.seq_len > 0 && shape.rows % shape.seq_len == 0, "{} rows, seq_len {}", shape.rows,
                   shape.seq_len);
    MOESAIC_ASSERT(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0, "heads {}, kv_heads {}",
                   shape.heads, shape.kv_heads);
}

/// One head's columns of one sequence's rows in a row-major matrix.
template <class T>
struct HeadRows {
    T* data;
    i64 stride;

    HeadRows(T* matrix, const AttentionShape& shape, i64 sequence, i64 head, i64 heads)
        : data(matrix + sequence * shape.seq_len * heads * shape.head_dim + head * shape.head_dim),
          stride(heads * shape.head_dim) {}
    [[nodiscard]] T* row(i64 i) const { return data + i * stride; }
    [[nodiscard]] auto operand() const { return StridedOperand<std::remove_const_t<T>>{data, stride, 1}; }
    [[nodiscard]] auto transposed() const { return StridedOperand<std::remove_const_t<T>>{data, 1, stride}; }
};

/// Hands out parts of this thread's scratch memory, aligned to 64 bytes.
template <class T>
class Workspace {
  public:
    explicit Workspace(i64 elements) : next_(scratch<T>(ScratchSlot::attention, elements)) {}
    T* take(i64 elements) { return std::exchange(next_, next_ + padded(elements)); }
    static i64 padded(i64 elements) { return (elements + 15) / 16 * 16; }

  private:
    T* next_;
};

/// Elements between rows of scores: no power of two, so that a column of scores does not fall on one cache
/// set.
i64 score_stride(const AttentionShape& shape) {
    return (shape.seq_len + 15) / 16 * 16 + kAttentionSlack;
}

template <class T>
T score_scale(const AttentionShape& shape) {
    return static_cast<T>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)));
}

/// The keys that a sequence's rows read. Row numbers count from the sequence's first row.
class FirstKeys {
  public:
    FirstKeys(const i32* first_key, const AttentionShape& shape, i64 sequence)
        : first_key_(first_key), sequence_row_(sequence * shape.seq_len) {}

    [[nodiscard]] i64 of(i64 row) const {
        if (!first_key_) return 0;
        const i64 first = first_key_[sequence_row_ + row] - sequence_row_;
        MOESAIC_ASSERT(first <= row, "first_key {} of row {}", first + sequence_row_, row + sequence_row_);
        return std::max<i64>(first, 0);
    }
    /// At most the first key of every row in [first, last), where vectors may begin.
    [[nodiscard]] i64 of_block(i64 first, i64 last) const {
        if (!first_key_) return 0;
        i64 lowest = first;
        for (i64 row = first; row < last; ++row) lowest = std::min(lowest, of(row));
        return lowest / kAttentionSlack * kAttentionSlack;
    }

  private:
    const i32* first_key_;
    i64 sequence_row_;
};

i64 all_keys(const AttentionShape& shape) {
    return shape.causal ? 0 : shape.seq_len;
}
i64 first_key_of(const AttentionShape& shape, const FirstKeys& first_keys, i64 first, i64 last) {
    return shape.causal ? first_keys.of_block(first, last) : 0;
}

/// The keys of row i within the columns that a block has.
template <class T>
KeyRange keys_of(const ScoreBlock<T>& block, const FirstKeys& first_keys, i64 i) {
    if (block.all_keys > 0) return {0, block.all_keys, block.all_keys};
    return {first_keys.of(i) - block.first_key, i + 1 - block.first_key, block.tile_end(i) - block.first_key};
}

template <class T>
void attend(const SequenceAttention<T>& attention, i64 sequence, i64 head) {
    const AttentionShape& shape = attention.shape;
    const GemmKernels<T>& products = gemm_kernels<T>();
    const AttentionKernels<T>& rows = attention_kernels<T>();
    const i64 length = shape.seq_len, key_head = head / (shape.heads / shape.kv_heads);
    const HeadRows<const T> q(attention.q, shape, sequence, head, shape.heads);
    const HeadRows<const T> k(attention.k, shape, sequence, key_head, shape.kv_heads);
    const HeadRows<const T> v(attention.v, shape, sequence, key_head, shape.kv_heads);
    const HeadRows<T> out(attention.out, shape, sequence, head, shape.heads);
    T* const log_sum_exp = attention.log_sum_exp + head * shape.rows + sequence * length;

    const i64 key_elements = PackedOperand<T>::elements(products, shape.head_dim, length);
    const i64 value_elements = PackedOperand<T>::elements(products, length, shape.head_dim);
    const i64 stride = score_stride(shape);
    Workspace<T> memory(Workspace<T>::padded(key_elements) + Workspace<T>::padded(value_elements) +
                        kQueryBlock * stride);
    PackedOperand<T> keys(products, memory.take(key_elements)), values(products, memory.take(value_elements));
    keys.pack(k.transposed(), shape.head_dim, length);
    values.pack(v.operand(), length, shape.head_dim);
    T* const scores = memory.take(kQueryBlock * stride);
    const FirstKeys first_keys(attention.first_key, shape, sequence);

    for (i64 first = 0; first < length; first += kQueryBlock) {
        const i64 last = std::min(length, first + kQueryBlock);
        const ScoreBlock<T> block{products,       scores, stride,
                                  first,          last,   first_key_of(shape, first_keys, first, last),
                                  all_keys(shape)};
        T sums[kQueryBlock];
        block.assign_product(q.operand().from(first, 0), shape.head_dim, keys);
        for (i64 i = first; i < last; ++i)
            log_sum_exp[i] = rows.exponentiate(block.row(i) + block.first_key, keys_of(block, first_keys, i),
                                               score_scale<T>(shape), &sums[i - first]);
        block.multiply(values, out.row(first), out.stride);
        for (i64 i = first; i < last; ++i)
            rows.multiply_by(out.row(i), shape.head_dim, T(1) / sums[i - first]);
    }
}

/// The backward of one key head of one sequence: its query heads one after the other.
template <class T>
class HeadBackward {
  public:
    HeadBackward(const SequenceAttentionGrad<T>& grad, i64 sequence, i64 key_head)
        : grad_(grad),
          shape_(grad.shape),
          sequence_(sequence),
          key_head_(key_head),
          memory_(elements()),
          keys_(take(shape_.head_dim, shape_.seq_len)),
          values_(take(shape_.head_dim, shape_.seq_len)),
          key_rows_(take(shape_.seq_len, shape_.head_dim)),
          query_rows_(take(kQueryBlock, shape_.head_dim)),
          d_out_rows_(take(kQueryBlock, shape_.head_dim)),
          scores_(memory_.take(kQueryBlock * score_stride(shape_))),
          d_scores_(memory_.take(kQueryBlock * score_stride(shape_))) {}

    void run() {
        const HeadRows<const T> k(grad_.k, shape_, sequence_, key_head_, shape_.kv_heads);
        const HeadRows<const T> v(grad_.v, shape_, sequence_, key_head_, shape_.kv_heads);
        const HeadRows<T> dk(grad_.dk, shape_, sequence_, key_head_, shape_.kv_heads);
        const HeadRows<T> dv(grad_.dv, shape_, sequence_, key_head_, shape_.kv_heads);
        keys_.pack(k.transposed(), shape_.head_dim, shape_.seq_len);
        values_.pack(v.transposed(), shape_.head_dim, shape_.seq_len);
        key_rows_.pack(k.operand(), shape_.seq_len, shape_.head_dim);
        for (i64 i = 0; i < shape_.seq_len; ++i) {
            std::fill_n(dk.row(i), shape_.head_dim, T(0));
            std::fill_n(dv.row(i), shape_.head_dim, T(0));
        }
        const i64 group = shape_.heads / shape_.kv_heads;
        for (i64 head = key_head_ * group; head < (key_head_ + 1) * group; ++head)
            for (i64 first = 0; first < shape_.seq_len; first += kQueryBlock) run_block(head, first, dk, dv);
    }

  private:
    i64 elements() const {
        auto size = [&](i64 p, i64 n) {
            return Workspace<T>::padded(PackedOperand<T>::elements(products_, p, n));
        };
        return 2 * size(shape_.head_dim, shape_.seq_len) + size(shape_.seq_len, shape_.head_dim) +
               2 * size(kQueryBlock, shape_.head_dim) + 2 * kQueryBlock * score_stride(shape_);
    }
    PackedOperand<T> take(i64 p, i64 n) {
        return {products_, memory_.take(PackedOperand<T>::elements(products_, p, n))};
    }

    /// With P the probabilities: dP = dO·Vᵀ, dS = scale·P∘(dP - rowsum(dO∘O)), dQ = dS·K, dK += dSᵀ·Q,
    /// dV += Pᵀ·dO (Dao et al. 2022, appendix B.2).
    void run_block(i64 head, i64 first, const HeadRows<T>& dk, const HeadRows<T>& dv) {
        const HeadRows<const T> q(grad_.q, shape_, sequence_, head, shape_.heads);
        const HeadRows<const T> out(grad_.out, shape_, sequence_, head, shape_.heads);
        const HeadRows<const T> d_out(grad_.d_out, shape_, sequence_, head, shape_.heads);
        const HeadRows<T> dq(grad_.dq, shape_, sequence_, head, shape_.heads);
        const T* const log_sum_exp = grad_.log_sum_exp + head * shape_.rows + sequence_ * shape_.seq_len;
        const i64 last = std::min(shape_.seq_len, first + kQueryBlock), stride = score_stride(shape_);
        const FirstKeys first_keys(grad_.first_key, shape_, sequence_);
        const i64 first_key = first_key_of(shape_, first_keys, first, last), keys = all_keys(shape_);
        const ScoreBlock<T> scores{products_, scores_, stride, first, last, first_key, keys};
        const ScoreBlock<T> d_scores{products_, d_scores_, stride, first, last, first_key, keys};

        scores.assign_product(q.operand().from(first, 0), shape_.head_dim, keys_);
        d_scores.assign_product(d_out.operand().from(first, 0), shape_.head_dim, values_);
        for (i64 i = first; i < last; ++i) {
            const T delta = rows_.dot(d_out.row(i), out.row(i), shape_.head_dim);
            rows_.softmax_backward(scores.row(i) + first_key, d_scores.row(i) + first_key,
                                   keys_of(scores, first_keys, i), score_scale<T>(shape_), log_sum_exp[i],
                                   delta);
        }
        query_rows_.pack(q.operand().from(first, 0), last - first, shape_.head_dim);
        d_out_rows_.pack(d_out.operand().from(first, 0), last - first, shape_.head_dim);
        d_scores.multiply(key_rows_, dq.row(first), dq.stride);
        d_scores.accumulate_transposed(query_rows_, dk.data, dk.stride);
        scores.accumulate_transposed(d_out_rows_, dv.data, dv.stride);
    }

    const GemmKernels<T>& products_ = gemm_kernels<T>();
    const AttentionKernels<T>& rows_ = attention_kernels<T>();
    const SequenceAttentionGrad<T>& grad_;
    const AttentionShape& shape_;
    i64 sequence_, key_head_;
    Workspace<T> memory_;
    PackedOperand<T> keys_, values_;                       // [head_dim, seq_len]
    PackedOperand<T> key_rows_, query_rows_, d_out_rows_;  // [., head_dim]
    T *scores_, *d_scores_;
};

}  // namespace

template <class T>
void sequence_attention(ThreadPool& pool, const SequenceAttention<T>& attention) {
    check(attention.shape);
    const i64 heads = attention.shape.heads;
    pool.parallel_for(attention.shape.rows / attention.shape.seq_len * heads,
                      [&](i64 task) { attend(attention, task / heads, task % heads); });
}

template <class T>
void sequence_attention_backward(ThreadPool& pool, const SequenceAttentionGrad<T>& grad) {
    check(grad.shape);
    const i64 heads = grad.shape.kv_heads;
    pool.parallel_for(grad.shape.rows / grad.shape.seq_len * heads,
                      [&](i64 task) { HeadBackward<T>(grad, task / heads, task % heads).run(); });
}

template void sequence_attention(ThreadPool&, const SequenceAttention<float>&);
template void sequence_attention(ThreadPool&, const SequenceAttention<double>&);
template void sequence_attention_backward(ThreadPool&, const SequenceAttentionGrad<float>&);
template void sequence_attention_backward(ThreadPool&, const SequenceAttentionGrad<double>&);

}  // namespace moesaic
