// The innermost loops of every product, compiled once per instruction set and chosen at run time.
#pragma once

#include <algorithm>
#include <type_traits>

#include "runtime/base/types.h"
#include "runtime/cpu/bf16_products.h"
#include "runtime/tensor.h"

namespace moesaic {

/// Where element (row, column) of an operand stands: data + row * row_stride + column * column_stride. Where
/// there is an index, row_index[row] or column_index[column] takes the place of row or column.
template <class T>
struct StridedOperand {
    const T* data = nullptr;
    i64 row_stride = 0, column_stride = 0;
    const i32* row_index = nullptr;
    const i32* column_index = nullptr;

    [[nodiscard]] const T* row(i64 row) const { return data + place(row_index, row) * row_stride; }
    [[nodiscard]] const T* column(i64 column) const {
        return data + place(column_index, column) * column_stride;
    }
    [[nodiscard]] StridedOperand from(i64 row, i64 column) const {
        StridedOperand rest = *this;
        advance(rest, rest.row_index, row, row_stride);
        advance(rest, rest.column_index, column, column_stride);
        return rest;
    }

  private:
    static i64 place(const i32* index, i64 position) {
        return index ? static_cast<i64>(index[position]) : position;
    }
    static void advance(StridedOperand& operand, const i32*& index, i64 count, i64 stride) {
        if (index) {
            index += count;
        } else {
            operand.data += count * stride;
        }
    }
};

/// Where sums that products are added to stand: in f64, or in the products' own type.
template <class T>
struct SumElements {
    double* wide = nullptr;
    T* real = nullptr;

    SumElements() = default;
    SumElements(double* elements) : wide(elements) {}
    SumElements(T* elements) requires(!std::is_same_v<T, double>) : real(elements) {}
    [[nodiscard]] explicit operator bool() const { return wide || real; }
    [[nodiscard]] i64 element_bytes() const { return static_cast<i64>(real ? sizeof(T) : sizeof(double)); }
    [[nodiscard]] SumElements from(i64 element) const {
        if (wide) return wide + element;
        return real ? SumElements(real + element) : *this;
    }
    void clear(i64 count) const {
        if (wide) std::fill_n(wide, count, 0.0);
        if (real) std::fill_n(real, count, T(0));
    }
};

/// What stands in a sum before a product is added.
enum class SumStart : std::uint8_t {
    added,     ///< other products
    zero,      ///< whatever it is, it counts as zero
    streamed,  ///< as zero; and the sum goes past the caches, since nobody reads it soon
};

/// c [rows, columns] (+)= a [rows, p] · panel [p, columns]. columns <= panel_columns. Row i of the panel
/// stands at panel + i * panel_stride; all of round_up(columns, lanes) elements there are read. a has no
/// column index. Fastest where a's columns are consecutive or a stands in tiles (pack_rows), and the panel's
/// rows follow each other.
template <class T>
struct PanelProduct {
    i64 rows = 0, p = 0, columns = 0;
    StridedOperand<T> a;
    i64 a_tile_stride = 0;  ///< elements from tile to tile of an a that pack_rows made (strides 1, row_tile)
    const T* panel = nullptr;
    i64 panel_stride = 0;
    T* c = nullptr;
    i64 c_row_stride = 0;
    bool accumulate = false;
    /// Rows rounded_row_stride apart, or null: the result is rounded to these instead of stored to c.
    BFloat16* rounded = nullptr;
    i64 rounded_row_stride = 0;
    /// Rows sum_row_stride apart, or nowhere: the result is added there instead of stored to c.
    SumElements<T> sum = {};
    i64 sum_row_stride = 0;
    SumStart sum_start = SumStart::added;
    /// Elements from `next` on will be read soon: they travel to the second-level cache meanwhile.
    const T* next = nullptr;
    i64 next_elements = 0;
    bool fetches_rows =
        false;  ///< a's rows are not in a cache yet: each tile's are fetched during the one before
};

/// From bf16, widened.
template <class T>
struct NarrowOperandKernels {
    /// As GemmKernels::pack_panel and pack_rows.
    void (*pack_panel)(const StridedOperand<BFloat16>& b, i64 p, i64 columns, T* panel) = nullptr;
    void (*pack_rows)(const StridedOperand<BFloat16>& a, i64 rows, i64 p, T* tiles) = nullptr;
    /// Copies a [rows, p], whose columns are consecutive, to rows `stride` elements apart; stride is at least
    /// round_up(p, lanes), all of which is written.
    void (*copy_rows)(const StridedOperand<BFloat16>& a, i64 rows, i64 p, T* to, i64 stride) = nullptr;
    /// A panel in half the memory, two rows in one: elements j of rows k and k + 1, k even, stand together,
    /// in this order, at pairs[k * width + 2 * j], width = round_up(columns, lanes). round_up(p, 2) rows,
    /// zeros beyond p.
    void (*pack_pairs)(const StridedOperand<BFloat16>& b, i64 p, i64 columns, PairOrder order,
                       BFloat16* pairs) = nullptr;
    /// As pack_pairs, to where GemmKernels::stream_panel writes.
    void (*stream_pairs)(const StridedOperand<BFloat16>& b, i64 p, i64 columns, PairOrder order,
                         BFloat16* pairs) = nullptr;
    /// The panel [round_up(p, 2), width] from its pairs.
    void (*unpack_pairs)(const BFloat16* pairs, i64 p, i64 width, PairOrder order, T* panel) = nullptr;
    /// As copy_rows and GemmKernels::pack_rows, of ceil(p / 2) pairs a row: columns k and k + 1, k even, are
    /// one T whose value means nothing; zeros beyond p. stride is at least ceil(p / 2).
    void (*copy_pair_rows)(const StridedOperand<BFloat16>& a, i64 rows, i64 p, PairOrder order, T* to,
                           i64 stride) = nullptr;
    /// Upper halves first.
    void (*pack_pair_rows)(const StridedOperand<BFloat16>& a, i64 rows, i64 p, T* tiles) = nullptr;
    /// As GemmKernels::multiply_panel where a's and the panel's elements are pairs, upper halves first, and p
    /// counts them: the same bits as if they were widened, but that denormal numbers are zeros. Null where
    /// the CPU has no instruction for it.
    void (*multiply_pairs)(const PanelProduct<T>&) = nullptr;
    /// As multiply_pairs by a matrix unit or in its order (TileProduct), of pairs with lower halves first and
    /// an a in rows (consecutive columns) alone. In a TileScope.
    void (*multiply_tiles)(const PanelProduct<T>&) = nullptr;
    /// As copy_pair_rows, of an a whose columns stand apart; stride is at least round_up(ceil(p / 2), lanes).
    /// Lower halves first, for multiply_tiles.
    void (*transpose_pair_rows)(const StridedOperand<BFloat16>& a, i64 rows, i64 p, T* to,
                                i64 stride) = nullptr;
};

template <class T>
struct GemmKernels {
    i64 row_tile = 0;       ///< rows that are computed together
    i64 panel_columns = 0;  ///< widest panel, a multiple of `lanes`
    i64 lanes = 0;
    /// Every element of c is one chain of fused multiply-adds over p in ascending order, from 0 or from c.
    void (*multiply_panel)(const PanelProduct<T>&) = nullptr;
    /// Copies b [p, columns] to panel [p, round_up(columns, lanes)], zeros beyond the columns. b has no
    /// column index.
    void (*pack_panel)(const StridedOperand<T>& b, i64 p, i64 columns, T* panel) = nullptr;
    /// The same past the caches, to a panel aligned to 64 bytes; hwy::FlushStream() before other threads
    /// read.
    void (*stream_panel)(const StridedOperand<T>& b, i64 p, i64 columns, T* panel) = nullptr;
    /// Copies a [rows, p] in tiles of row_tile rows: row i, column k goes to tile i / row_tile, which holds
    /// p * row_tile elements, at k * row_tile + i % row_tile. For an a whose rows are consecutive in memory,
    /// without a row index.
    void (*pack_rows)(const StridedOperand<T>& a, i64 rows, i64 p, T* tiles) = nullptr;
    /// What products of bf16 operands need besides; null where T is double.
    NarrowOperandKernels<T> narrow;
};

/// The kernels for this CPU; T is float or double.
template <class T>
[[nodiscard]] const GemmKernels<T>& gemm_kernels();

}  // namespace moesaic
