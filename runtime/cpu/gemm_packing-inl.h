// How the operands of a product are copied for its register tiles, compiled once per target: panels of
// columns, tiles of rows.
#if defined(MOESAIC_RUNTIME_CPU_GEMM_PACKING_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOESAIC_RUNTIME_CPU_GEMM_PACKING_INL_H_
#undef MOESAIC_RUNTIME_CPU_GEMM_PACKING_INL_H_
#else
#define MOESAIC_RUNTIME_CPU_GEMM_PACKING_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "runtime/cpu/gemm_kernel.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {  // other files have functions of the same names here
namespace hn = hwy::HWY_NAMESPACE;

// 8 x 3 accumulators fill the 32 registers of AVX-512, 4 x 3 the 16 of AVX2.
constexpr int kRowTile = HWY_MAX_BYTES >= 64 ? 8 : 4;

template <class T>
using Lanes = hn::ScalableTag<T>;
template <class T>
using Vector = hn::Vec<Lanes<T>>;

/// A vector from memory where `columns` elements are left; the lanes beyond them are zero.
template <class T>
HWY_INLINE Vector<T> load_columns(const T* from, i64 columns) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    if (columns >= lanes) return hn::LoadU(d, from);
    return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(std::max<i64>(columns, 0))), d, from);
}

constexpr i64 kRowsAhead = 16;  // rows are far apart, which no hardware foresees

/// b has consecutive columns: rows are copied.
template <class T>
void copy_rows(const StridedOperand<T>& b, i64 p, i64 columns, T* panel) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    for (i64 k = 0; k < p; ++k) {
        const T* from = b.row(k);
        const T* const later = b.row(std::min(k + kRowsAhead, p - 1));
        __builtin_prefetch(later, 0, 3);
        __builtin_prefetch(later + columns - 1, 0, 3);
        for (i64 column = 0; column < columns; column += lanes, panel += lanes)
            hn::StoreU(load_columns(from + column, columns - column), d, panel);
    }
}

/// A vector whose 128-bit blocks come from rows `stride` elements apart.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_blocks(D d, const T* from, i64 stride) {
    if constexpr (hn::MaxLanes(D()) * sizeof(T) <= 16) {
        return hn::LoadU(d, from);
    } else {
        const hn::Half<D> half;
        const i64 blocks = static_cast<i64>(hn::Lanes(half) * sizeof(T) / 16);
        return Combine(d, load_blocks(half, from + blocks * stride, stride), load_blocks(half, from, stride));
    }
}

// Names that single-lane targets lack are left to argument-dependent lookup.

/// Writes `lanes` columns of b (consecutive along p) transposed: panel[k * panel_stride + j] = b(k, j).
template <class T>
HWY_INLINE void transpose_columns(const T* b, i64 column_stride, i64 p, T* panel, i64 panel_stride) {
    const Lanes<T> d;
    constexpr i64 kBlock = 16 / sizeof(T);
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    i64 k = 0;
    for (; k + kBlock <= p; k += kBlock) {
        T* to = panel + k * panel_stride;
        const i64 step = kBlock * column_stride;
        const auto v0 = load_blocks(d, b + k, step);
        const auto v1 = load_blocks(d, b + k + column_stride, step);
        if constexpr (kBlock == 2) {
            hn::StoreU(InterleaveLower(d, v0, v1), d, to);
            hn::StoreU(InterleaveUpper(d, v0, v1), d, to + panel_stride);
        } else {
            const auto v2 = load_blocks(d, b + k + 2 * column_stride, step);
            const auto v3 = load_blocks(d, b + k + 3 * column_stride, step);
            const auto low02 = InterleaveLower(d, v0, v2), low13 = InterleaveLower(d, v1, v3);
            const auto up02 = InterleaveUpper(d, v0, v2), up13 = InterleaveUpper(d, v1, v3);
            hn::StoreU(InterleaveLower(d, low02, low13), d, to);
            hn::StoreU(InterleaveUpper(d, low02, low13), d, to + panel_stride);
            hn::StoreU(InterleaveLower(d, up02, up13), d, to + 2 * panel_stride);
            hn::StoreU(InterleaveUpper(d, up02, up13), d, to + 3 * panel_stride);
        }
    }
    for (; k < p; ++k)
        for (i64 j = 0; j < lanes; ++j) panel[k * panel_stride + j] = b[k + j * column_stride];
}

template <class T>
void pack_panel(const StridedOperand<T>& b, i64 p, i64 columns, T* panel) {
    if (b.column_stride == 1) return copy_rows(b, p, columns, panel);
    const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<T>()));
    const i64 width = (columns + lanes - 1) / lanes * lanes;
    constexpr bool kWholeBlocks = hn::MaxLanes(Lanes<T>()) * sizeof(T) >= 16;
    for (i64 column = 0; column < width; column += lanes) {
        const T* from = b.data + column * b.column_stride;
        if constexpr (kWholeBlocks) {
            if (b.row_stride == 1 && !b.row_index && column + lanes <= columns) {
                transpose_columns(from, b.column_stride, p, panel + column, width);
                continue;
            }
        }
        for (i64 k = 0; k < p; ++k)
            for (i64 j = 0; j < lanes; ++j)
                panel[k * width + column + j] =
                    column + j < columns ? b.row(k)[(column + j) * b.column_stride] : T(0);
    }
}

template <class T>
void pack_rows(const StridedOperand<T>& a, i64 rows, i64 p, T* tiles) {
    constexpr i64 kTogether = 4;  // columns: whole cache lines are written, since tiles share cache sets
    const i64 whole = a.row_stride == 1 ? rows / kRowTile * kRowTile : 0;
    for (i64 k = 0; k < p; k += kTogether) {
        const i64 columns = std::min(kTogether, p - k);
        const T* from[kTogether];
        for (i64 j = 0; j < columns; ++j) {
            from[j] = a.column(k + j);
            const T* const later = a.column(std::min(k + j + kRowsAhead / 2, p - 1));
            for (i64 line = 0; line < rows; line += 64 / static_cast<i64>(sizeof(T)))
                __builtin_prefetch(later + line, 0, 3);
        }
        for (i64 row = 0; row < whole; row += kRowTile) {
            T* const to = tiles + row * p + k * kRowTile;
            for (i64 j = 0; j < columns; ++j)
                std::memcpy(to + j * kRowTile, from[j] + row, kRowTile * sizeof(T));
        }
        for (i64 row = whole; row < rows; ++row) {
            T* const to = tiles + row / kRowTile * kRowTile * p + k * kRowTile + row % kRowTile;
            for (i64 j = 0; j < columns; ++j) to[j * kRowTile] = from[j][row * a.row_stride];
        }
    }
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
