// What attention's ways of computing share: where a head's rows stand, and which keys they read.
#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "runtime/base/error.h"
#include "runtime/cpu/attention.h"
#include "runtime/cpu/attention_kernel.h"
#include "runtime/cpu/gemm_kernel.h"

namespace moesaic {

/// One head's columns of one sequence's rows in a row-major matrix.
template <class T>
struct HeadRows {
    T* data;
    i64 stride;

    HeadRows(T* matrix, const AttentionShape& shape, i64 sequence, i64 head, i64 heads)
        : data(matrix + sequence * shape.seq_len * heads * shape.head_dim + head * shape.head_dim),
          stride(heads * shape.head_dim) {}
    HeadRows(T* rows, i64 row_stride) : data(rows), stride(row_stride) {}
    [[nodiscard]] T* row(i64 i) const { return data + i * stride; }
    [[nodiscard]] auto operand() const { return StridedOperand<std::remove_const_t<T>>{data, stride, 1}; }
    [[nodiscard]] auto transposed() const { return StridedOperand<std::remove_const_t<T>>{data, 1, stride}; }
};

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
    /// At most the first key of every row in [first, last), a multiple of `unit`.
    [[nodiscard]] i64 of_block(i64 first, i64 last, i64 unit) const {
        if (!first_key_) return 0;
        i64 lowest = first;
        for (i64 row = first; row < last; ++row) lowest = std::min(lowest, of(row));
        return lowest / unit * unit;
    }

  private:
    const i32* first_key_;
    i64 sequence_row_;
};

}  // namespace moesaic
