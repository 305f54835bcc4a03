// Attention forward and backward: one task per sequence and head (backward: key head).
#include "runtime/cpu/attention.h"

#include <algorithm>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/cpu/attention_blocks.h"
#include "runtime/cpu/attention_heads.h"
#include "runtime/cpu/attention_tiles.h"
#include "runtime/cpu/elementwise.h"
#include "runtime/cpu/scratch.h"

namespace moesaic {
namespace {

void check(const AttentionShape& shape) {
    MOESAIC_ASSERT(shape.seq_len > 0 && shape.rows % shape.seq_len == 0, "{} rows, seq_len {}", shape.rows,
                   shape.seq_len);
    MOESAIC_ASSERT(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0, "heads {}, kv_heads {}",
                   shape.heads, shape.kv_heads);
}

/// Rows of one head in the type that they are computed in: where they stand if they are stored so, else a
/// copy of those of `capacity` rows that are worked on.
template <class Stored>
class RealRows {
  public:
    using Real = cpu::RealType<Stored>;
    static constexpr bool kCopies = !std::is_same_v<Stored, Real>;
    [[nodiscard]] static i64 elements(i64 capacity, i64 columns) { return kCopies ? capacity * columns : 0; }

    /// `room` has elements() elements.
    RealRows(Real* room, i64 columns) : room_(room), columns_(columns) {}

    [[nodiscard]] HeadRows<const Real> read(const HeadRows<const Stored>& from, i64 first, i64 count) const {
        if constexpr (kCopies) {
            cpu::widen_rows({count, columns_, columns_, from.stride}, from.row(first), room_);
            return {room_, columns_};
        } else {
            (void)count;
            return {from.row(first), from.stride};
        }
    }
    /// Where results are left for finish(): rows from `first` on.
    [[nodiscard]] HeadRows<Real> write(const HeadRows<Stored>& to, i64 first) const {
        if constexpr (kCopies) {
            return {room_, columns_};
        } else {
            return {to.row(first), to.stride};
        }
    }
    void finish(const HeadRows<Stored>& to, i64 first, i64 count) const {
        if constexpr (kCopies) cpu::round_rows({count, columns_, columns_, to.stride}, room_, to.row(first));
    }

  private:
    Real* room_;
    i64 columns_;
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

i64 all_keys(const AttentionShape& shape) {
    return shape.causal ? 0 : shape.seq_len;
}
i64 first_key_of(const AttentionShape& shape, const FirstKeys& first_keys, i64 first, i64 last) {
    return shape.causal ? first_keys.of_block(first, last, kAttentionSlack) : 0;
}

/// The keys of row i within the columns that a block has.
template <class T>
KeyRange keys_of(const ScoreBlock<T>& block, const FirstKeys& first_keys, i64 i) {
    if (block.all_keys > 0) return {0, block.all_keys, block.all_keys};
    return {first_keys.of(i) - block.first_key, i + 1 - block.first_key, block.tile_end(i) - block.first_key};
}

template <class Stored>
void attend(const SequenceAttention<Stored>& attention, i64 sequence, i64 head) {
    using T = cpu::RealType<Stored>;
    const AttentionShape& shape = attention.shape;
    const GemmKernels<T>& products = gemm_kernels<T>();
    const AttentionKernels<T>& rows = attention_kernels<T>();
    const i64 length = shape.seq_len, key_head = head / (shape.heads / shape.kv_heads);
    const HeadRows<const Stored> q(attention.q, shape, sequence, head, shape.heads);
    const HeadRows<const Stored> k(attention.k, shape, sequence, key_head, shape.kv_heads);
    const HeadRows<const Stored> v(attention.v, shape, sequence, key_head, shape.kv_heads);
    const HeadRows<Stored> out(attention.out, shape, sequence, head, shape.heads);
    T* const log_sum_exp = attention.log_sum_exp + head * shape.rows + sequence * length;

    const i64 key_elements = PackedOperand<T>::elements(products, shape.head_dim, length);
    const i64 value_elements = PackedOperand<T>::elements(products, length, shape.head_dim);
    const i64 copied = RealRows<Stored>::elements(kMostQueryRows, shape.head_dim);
    const i64 stride = score_stride(shape);
    Workspace<T> memory(Workspace<T>::padded(key_elements) + Workspace<T>::padded(value_elements) +
                        kMostQueryRows * stride + 2 * Workspace<T>::padded(copied));
    PackedOperand<T> keys(products, memory.take(key_elements)), values(products, memory.take(value_elements));
    keys.pack(k.transposed(), shape.head_dim, length);
    values.pack(v.operand(), length, shape.head_dim);
    T* const scores = memory.take(kMostQueryRows * stride);
    const RealRows<Stored> query_rows(memory.take(copied), shape.head_dim);
    const RealRows<Stored> out_rows(memory.take(copied), shape.head_dim);
    const FirstKeys first_keys(attention.first_key, shape, sequence);

    for (i64 first = 0; first < length; first += query_block(products)) {
        const i64 last = std::min(length, first + query_block(products));
        const ScoreBlock<T> block{products,       scores, stride,
                                  first,          last,   first_key_of(shape, first_keys, first, last),
                                  all_keys(shape)};
        T sums[kMostQueryRows];
        block.assign_product(query_rows.read(q, first, last - first).operand(), shape.head_dim, keys);
        for (i64 i = first; i < last; ++i)
            log_sum_exp[i] = rows.exponentiate(block.row(i) + block.first_key, keys_of(block, first_keys, i),
                                               score_scale<T>(shape), &sums[i - first]);
        const HeadRows<T> result = out_rows.write(out, first);
        block.multiply(values, result.data, result.stride);
        for (i64 i = first; i < last; ++i)
            rows.multiply_by(result.row(i - first), shape.head_dim, T(1) / sums[i - first]);
        out_rows.finish(out, first, last - first);
    }
}

/// The backward of one key head of one sequence: its query heads one after the other.
template <class Stored>
class HeadBackward {
  public:
    using T = cpu::RealType<Stored>;
    HeadBackward(const SequenceAttentionGrad<Stored>& grad, i64 sequence, i64 key_head)
        : grad_(grad),
          shape_(grad.shape),
          sequence_(sequence),
          key_head_(key_head),
          memory_(elements()),
          keys_(take(shape_.head_dim, shape_.seq_len)),
          values_(take(shape_.head_dim, shape_.seq_len)),
          key_rows_(take(shape_.seq_len, shape_.head_dim)),
          query_rows_(take(kMostQueryRows, shape_.head_dim)),
          d_out_rows_(take(kMostQueryRows, shape_.head_dim)),
          scores_(memory_.take(kMostQueryRows * score_stride(shape_))),
          d_scores_(memory_.take(kMostQueryRows * score_stride(shape_))),
          queries_(take_rows(kMostQueryRows)),
          outs_(take_rows(kMostQueryRows)),
          d_outs_(take_rows(kMostQueryRows)),
          d_queries_(take_rows(kMostQueryRows)),
          d_keys_(take_rows(shape_.seq_len)),
          d_values_(take_rows(shape_.seq_len)) {}

    void run() {
        const i64 length = shape_.seq_len, columns = shape_.head_dim;
        const HeadRows<const Stored> k(grad_.k, shape_, sequence_, key_head_, shape_.kv_heads);
        const HeadRows<const Stored> v(grad_.v, shape_, sequence_, key_head_, shape_.kv_heads);
        const HeadRows<Stored> stored_dk(grad_.dk, shape_, sequence_, key_head_, shape_.kv_heads);
        const HeadRows<Stored> stored_dv(grad_.dv, shape_, sequence_, key_head_, shape_.kv_heads);
        const HeadRows<T> dk = d_keys_.write(stored_dk, 0), dv = d_values_.write(stored_dv, 0);
        keys_.pack(k.transposed(), columns, length);
        values_.pack(v.transposed(), columns, length);
        key_rows_.pack(k.operand(), length, columns);
        for (i64 i = 0; i < length; ++i) {
            std::fill_n(dk.row(i), columns, T(0));
            std::fill_n(dv.row(i), columns, T(0));
        }
        const i64 group = shape_.heads / shape_.kv_heads;
        for (i64 head = key_head_ * group; head < (key_head_ + 1) * group; ++head)
            for (i64 first = 0; first < length; first += query_block(products_))
                run_block(head, first, dk, dv);
        d_keys_.finish(stored_dk, 0, length);
        d_values_.finish(stored_dv, 0, length);
    }

  private:
    i64 elements() const {
        auto size = [&](i64 p, i64 n) {
            return Workspace<T>::padded(PackedOperand<T>::elements(products_, p, n));
        };
        auto copied = [&](i64 rows) {
            return Workspace<T>::padded(RealRows<Stored>::elements(rows, shape_.head_dim));
        };
        return 2 * size(shape_.head_dim, shape_.seq_len) + size(shape_.seq_len, shape_.head_dim) +
               2 * size(kMostQueryRows, shape_.head_dim) + 2 * kMostQueryRows * score_stride(shape_) +
               4 * copied(kMostQueryRows) + 2 * copied(shape_.seq_len);
    }
    PackedOperand<T> take(i64 p, i64 n) {
        return {products_, memory_.take(PackedOperand<T>::elements(products_, p, n))};
    }
    RealRows<Stored> take_rows(i64 rows) {
        return {memory_.take(RealRows<Stored>::elements(rows, shape_.head_dim)), shape_.head_dim};
    }

    /// With P the probabilities: dP = dO·Vᵀ, dS = scale·P∘(dP - rowsum(dO∘O)), dQ = dS·K, dK += dSᵀ·Q,
    /// dV += Pᵀ·dO (Dao et al. 2022, appendix B.2).
    void run_block(i64 head, i64 first, const HeadRows<T>& dk, const HeadRows<T>& dv) {
        const i64 last = std::min(shape_.seq_len, first + query_block(products_)),
                  stride = score_stride(shape_);
        const i64 count = last - first, columns = shape_.head_dim;
        const HeadRows<Stored> stored_dq(grad_.dq, shape_, sequence_, head, shape_.heads);
        const HeadRows<const T> q = queries_.read(of_head(grad_.q, head), first, count);
        const HeadRows<const T> out = outs_.read(of_head(grad_.out, head), first, count);
        const HeadRows<const T> d_out = d_outs_.read(of_head(grad_.d_out, head), first, count);
        const HeadRows<T> dq = d_queries_.write(stored_dq, first);
        const T* const log_sum_exp = grad_.log_sum_exp + head * shape_.rows + sequence_ * shape_.seq_len;
        const FirstKeys first_keys(grad_.first_key, shape_, sequence_);
        const i64 first_key = first_key_of(shape_, first_keys, first, last), keys = all_keys(shape_);
        const ScoreBlock<T> scores{products_, scores_, stride, first, last, first_key, keys};
        const ScoreBlock<T> d_scores{products_, d_scores_, stride, first, last, first_key, keys};

        scores.assign_product(q.operand(), columns, keys_);
        d_scores.assign_product(d_out.operand(), columns, values_);
        for (i64 i = first; i < last; ++i) {
            const T delta = rows_.dot(d_out.row(i - first), out.row(i - first), columns);
            rows_.softmax_backward(scores.row(i) + first_key, d_scores.row(i) + first_key,
                                   keys_of(scores, first_keys, i), score_scale<T>(shape_), log_sum_exp[i],
                                   delta);
        }
        query_rows_.pack(q.operand(), count, columns);
        d_out_rows_.pack(d_out.operand(), count, columns);
        d_scores.multiply(key_rows_, dq.data, dq.stride);
        d_queries_.finish(stored_dq, first, count);
        d_scores.accumulate_transposed(query_rows_, dk.data, dk.stride);
        scores.accumulate_transposed(d_out_rows_, dv.data, dv.stride);
    }
    [[nodiscard]] HeadRows<const Stored> of_head(const Stored* matrix, i64 head) const {
        return {matrix, shape_, sequence_, head, shape_.heads};
    }

    const GemmKernels<T>& products_ = gemm_kernels<T>();
    const AttentionKernels<T>& rows_ = attention_kernels<T>();
    const SequenceAttentionGrad<Stored>& grad_;
    const AttentionShape& shape_;
    i64 sequence_, key_head_;
    Workspace<T> memory_;
    PackedOperand<T> keys_, values_;                       // [head_dim, seq_len]
    PackedOperand<T> key_rows_, query_rows_, d_out_rows_;  // [., head_dim]
    T *scores_, *d_scores_;
    RealRows<Stored> queries_, outs_, d_outs_, d_queries_;  // of a block
    RealRows<Stored> d_keys_, d_values_;                    // of the sequence
};

template <class Stored>
void attend_by_quickest(const SequenceAttention<Stored>& attention, i64 sequence, i64 head) {
    if constexpr (std::is_same_v<Stored, BFloat16>) {
        if (bf16_products() == Bf16Products::tiles) return attend_by_tiles(attention, sequence, head);
    }
    attend(attention, sequence, head);
}
template <class Stored>
void attend_backward_by_quickest(const SequenceAttentionGrad<Stored>& grad, i64 sequence, i64 key_head) {
    if constexpr (std::is_same_v<Stored, BFloat16>) {
        if (bf16_products() == Bf16Products::tiles) return attend_backward_by_tiles(grad, sequence, key_head);
    }
    HeadBackward<Stored>(grad, sequence, key_head).run();
}

}  // namespace

template <class Stored>
void sequence_attention(ThreadPool& pool, const SequenceAttention<Stored>& attention) {
    check(attention.shape);
    const i64 heads = attention.shape.heads;
    pool.parallel_for(attention.shape.rows / attention.shape.seq_len * heads,
                      [&](i64 task) { attend_by_quickest(attention, task / heads, task % heads); });
}

template <class Stored>
void sequence_attention_backward(ThreadPool& pool, const SequenceAttentionGrad<Stored>& grad) {
    check(grad.shape);
    const i64 heads = grad.shape.kv_heads;
    pool.parallel_for(grad.shape.rows / grad.shape.seq_len * heads,
                      [&](i64 task) { attend_backward_by_quickest(grad, task / heads, task % heads); });
}

template void sequence_attention(ThreadPool&, const SequenceAttention<float>&);
template void sequence_attention(ThreadPool&, const SequenceAttention<double>&);
template void sequence_attention(ThreadPool&, const SequenceAttention<BFloat16>&);
template void sequence_attention_backward(ThreadPool&, const SequenceAttentionGrad<float>&);
template void sequence_attention_backward(ThreadPool&, const SequenceAttentionGrad<double>&);
template void sequence_attention_backward(ThreadPool&, const SequenceAttentionGrad<BFloat16>&);

}  // namespace moesaic
