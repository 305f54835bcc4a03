// The innermost loops of every product, compiled once per instruction set and chosen at run time.
#pragma once

#include "runtime/base/types.h"

namespace moesaic {

/// Where element (row, column) of an operand stands: data + row * row_stride + column * column_stride.
template <class T>
struct StridedOperand {
    const T* data = nullptr;
    i64 row_stride = 0, column_stride = 0;

    [[nodiscard]] StridedOperand from(i64 row, i64 column) const {
        return {data + row * row_stride + column * column_stride, row_stride, column_stride};
    }
};

/// c [rows, columns] (+)= a [rows, p] · panel [p, columns]. columns <= panel_columns. Row i of the panel
/// stands at panel + i * panel_stride; all of round_up(columns, lanes) elements there are read.
template <class T>
struct PanelProduct {
    i64 rows = 0, p = 0, columns = 0;
    StridedOperand<T> a;
    const T* panel = nullptr;
    i64 panel_stride = 0;
    T* c = nullptr;
    i64 c_row_stride = 0;
    bool accumulate = false;
};

template <class T>
struct GemmKernels {
    i64 row_tile = 0;       ///< rows that are computed together
    i64 panel_columns = 0;  ///< widest panel, a multiple of `lanes`
    i64 lanes = 0;
    /// Every element of c is one chain of fused multiply-adds over p in ascending order, from 0 or from c.
    void (*multiply_panel)(const PanelProduct<T>&) = nullptr;
    /// Copies b [p, columns] to panel [p, round_up(columns, lanes)], zeros beyond the columns.
    void (*pack_panel)(const StridedOperand<T>& b, i64 p, i64 columns, T* panel) = nullptr;
};

/// The kernels for this CPU; T is float or double.
template <class T>
[[nodiscard]] const GemmKernels<T>& gemm_kernels();

}  // namespace moesaic
