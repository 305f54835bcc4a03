// Products with a block of scores: of causal ones only register tiles on and below the diagonal are computed.
#pragma once

#include <algorithm>
#include <type_traits>

#include "runtime/cpu/gemm_kernel.h"

namespace moesaic {

/// Query rows whose scores exist at a time, at most; and as many of them as are whole register tiles.
inline constexpr i64 kMostQueryRows = 66;
template <class T>
i64 query_block(const GemmKernels<T>& kernels) {
    return kMostQueryRows / kernels.row_tile * kernels.row_tile;
}

/// A right operand [p,n] in panels; the memory is the caller's.
template <class T>
class PackedOperand {
  public:
    PackedOperand(const GemmKernels<T>& kernels, T* memory) : kernels_(kernels), memory_(memory) {}

    [[nodiscard]] static i64 elements(const GemmKernels<T>& kernels, i64 p, i64 n) {
        return p * (n + kernels.lanes);
    }
    /// Of T, or of bf16.
    template <class Stored>
    void pack(const StridedOperand<Stored>& b, i64 p, i64 n) {
        p_ = p;
        n_ = n;
        for (i64 column = 0; column < n; column += kernels_.panel_columns) {
            if constexpr (std::is_same_v<Stored, T>) {
                kernels_.pack_panel(b.from(0, column), p, width(column), memory_ + column * p);
            } else {
                kernels_.narrow.pack_panel(b.from(0, column), p, width(column), memory_ + column * p);
            }
        }
    }
    [[nodiscard]] i64 columns() const { return n_; }

    /// Sets `product` to the panel that starts at `column`, from row `first_p` on.
    void select(i64 column, i64 first_p, PanelProduct<T>& product) const {
        product.columns = width(column);
        product.panel_stride = (product.columns + kernels_.lanes - 1) / kernels_.lanes * kernels_.lanes;
        product.panel = memory_ + column * p_ + first_p * product.panel_stride;
    }

  private:
    [[nodiscard]] i64 width(i64 column) const { return std::min(kernels_.panel_columns, n_ - column); }

    const GemmKernels<T>& kernels_;
    T* memory_;
    i64 p_ = 0, n_ = 0;
};

/// Rows [first, last) of a matrix [S,S], `stride` elements apart; `first` is a multiple of the row tile.
/// Where `all_keys` is 0 the matrix is lower triangular: row i is defined from column `first_key` (at most
/// `first`) up to the end of the register tile that i stands in, with zeros behind i.
/// Else `all_keys` is S, `first_key` is 0 and all columns are defined.
template <class T>
struct ScoreBlock {
    const GemmKernels<T>& kernels;
    T* data;
    i64 stride, first, last, first_key, all_keys = 0;

    /// Element (i, 0), which need not be defined.
    [[nodiscard]] T* row(i64 i) const { return data + (i - first) * stride; }
    /// One past the last row of row i's register tile; the whole block where all columns are defined.
    [[nodiscard]] i64 tile_end(i64 i) const {
        if (all_keys > 0) return last;
        return std::min(last, (i / kernels.row_tile + 1) * kernels.row_tile);
    }
    /// One past the last column that is defined in row i's register tile.
    [[nodiscard]] i64 keys_end(i64 i) const { return all_keys > 0 ? all_keys : tile_end(i); }

    /// block = left · right, where `left` starts at row `first` and has p columns.
    void assign_product(const StridedOperand<T>& left, i64 p, const PackedOperand<T>& right) const {
        PanelProduct<T> product;
        product.p = p;
        product.c_row_stride = stride;
        for (i64 column = first_key / kernels.panel_columns * kernels.panel_columns;
             column < keys_end(last - 1); column += kernels.panel_columns) {
            right.select(column, 0, product);
            const i64 width = product.columns;
            i64 i = all_keys > 0 ? first : std::max(first, column / kernels.row_tile * kernels.row_tile);
            while (i < last) {  // tile by tile across the diagonal, then the rest at once
                const i64 end = tile_end(i) < column + width ? tile_end(i) : last;
                product.rows = end - i;
                product.columns = std::min(width, (all_keys > 0 ? all_keys : end) - column);
                product.a = left.from(i - first, 0);
                product.c = row(i) + column;
                kernels.multiply_panel(product);
                i = end;
            }
        }
    }

    /// c [rows of the block, n] = block · right [S,n].
    void multiply(const PackedOperand<T>& right, T* c, i64 c_row_stride) const {
        PanelProduct<T> product;
        product.c_row_stride = c_row_stride;
        for (i64 column = 0; column < right.columns(); column += kernels.panel_columns) {
            right.select(column, first_key, product);
            for (i64 i = first; i < last; i += product.rows) {
                product.p = keys_end(i) - first_key;
                product.rows = tile_end(i) - i;
                product.a = {row(i) + first_key, stride, 1};
                product.c = c + (i - first) * c_row_stride + column;
                kernels.multiply_panel(product);
            }
        }
    }

    /// c [keys_end(last - 1), n] += blockᵀ · right from row `first_key` on, where `right` holds the block's
    /// rows; rows are added in ascending order.
    void accumulate_transposed(const PackedOperand<T>& right, T* c, i64 c_row_stride) const {
        PanelProduct<T> product;
        product.c_row_stride = c_row_stride;
        product.accumulate = true;
        const i64 keys = keys_end(last - 1);
        for (i64 column = 0; column < right.columns(); column += kernels.panel_columns) {
            i64 key = first_key;
            // Keys before a causal block see all of its rows, the others those from their tile on.
            while (key < keys) {
                const i64 first_row = all_keys > 0 ? first : std::max(first, key);
                const i64 end = all_keys > 0 ? keys : key < first ? first : tile_end(key);
                right.select(column, first_row - first, product);
                product.rows = end - key;
                product.p = last - first_row;
                product.a = {row(first_row) + key, 1, stride};
                product.c = c + key * c_row_stride + column;
                kernels.multiply_panel(product);
                key = end;
            }
        }
    }
};

}  // namespace moesaic
