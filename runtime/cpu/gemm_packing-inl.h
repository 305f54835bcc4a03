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
#include <numeric>

#include "runtime/bfloat16.h"
#include "runtime/cpu/gemm_kernel.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {  // other files have functions of the same names here
namespace hn = hwy::HWY_NAMESPACE;

// Accumulators, a row of b and one element of a: 29 of the 32 registers of AVX-512, 16 of the 16 of AVX2.
// Four vectors of AVX-512 are whole cache lines of a result, in bf16 too.
constexpr int kRowTile = HWY_MAX_BYTES >= 64 ? 6 : 4;
constexpr int kPanelVectors = HWY_MAX_BYTES >= 64 ? 4 : 3;

template <class T>
using Lanes = hn::ScalableTag<T>;
template <class T>
using Vector = hn::Vec<Lanes<T>>;

/// Where vectors have 16 bytes, Highway's masked loads read, and its blended stores write back, whole
/// vectors: beyond the end of memory, and over what another thread has written there.
constexpr bool kMasksMemory = HWY_MAX_BYTES >= 32;

/// A vector from memory where `columns` elements are left; the lanes beyond them are zero.
template <class T>
HWY_INLINE Vector<T> load_columns(const T* from, i64 columns) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    if (columns >= lanes) return hn::LoadU(d, from);
    if constexpr (!kMasksMemory) return cpu::HWY_NAMESPACE::load(d, from, columns);
    return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(std::max<i64>(columns, 0))), d, from);
}

/// The same of bf16, widened.
template <class T>
HWY_INLINE Vector<T> load_columns(const BFloat16* from, i64 columns) {
    return cpu::HWY_NAMESPACE::load(Lanes<T>(), from, columns);
}
template <class T>
HWY_INLINE T element_of(T value) {
    return value;
}
template <class T>
HWY_INLINE T element_of(BFloat16 value) {
    return widened(value);
}

constexpr i64 kRowsAhead = 16;  // rows are far apart, which no hardware foresees

/// How vectors of a panel are written.
struct IntoCaches {
    template <class T>
    static HWY_INLINE void put(Vector<T> value, T* to) {
        hn::StoreU(value, Lanes<T>(), to);
    }
    template <class T>
    static HWY_INLINE void put_apart(Vector<T> value, T* to) {
        put(value, to);
    }
};
/// To where vectors are aligned. put_apart() is for vectors whose neighbours are written later: of a line
/// that is written in parts memory would be read.
struct PastCaches {
    template <class T>
    static HWY_INLINE void put(Vector<T> value, T* to) {
        if constexpr (hn::MaxLanes(Lanes<T>()) * sizeof(T) >= 16) {
            hn::Stream(value, Lanes<T>(), to);
        } else {
            IntoCaches::put(value, to);
        }
    }
    template <class T>
    static HWY_INLINE void put_apart(Vector<T> value, T* to) {
        if constexpr (hn::MaxLanes(Lanes<T>()) * sizeof(T) >= 64) {
            put(value, to);
        } else {
            IntoCaches::put(value, to);
        }
    }
};

/// b has consecutive columns: rows are copied.
template <class Stores, class T, class Stored>
void copy_rows(const StridedOperand<Stored>& b, i64 p, i64 columns, T* panel) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    for (i64 k = 0; k < p; ++k) {
        const Stored* from = b.row(k);
        const Stored* const later = b.row(std::min(k + kRowsAhead, p - 1));
        __builtin_prefetch(later, 0, 3);
        __builtin_prefetch(later + columns - 1, 0, 3);
        for (i64 column = 0; column < columns; column += lanes, panel += lanes)
            Stores::put(load_columns<T>(from + column, columns - column), panel);
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

/// Takes whole vectors from `lanes` columns of b (consecutive along p), k by k: put(k, b(k, .)). Returns how
/// many k that were.
template <class T, class Put>
HWY_INLINE i64 transpose_columns(const T* b, i64 column_stride, i64 p, const Put& put) {
    const Lanes<T> d;
    constexpr i64 kBlock = 16 / sizeof(T);
    i64 k = 0;
    for (; k + kBlock <= p; k += kBlock) {
        const i64 step = kBlock * column_stride;
        const auto v0 = load_blocks(d, b + k, step);
        const auto v1 = load_blocks(d, b + k + column_stride, step);
        if constexpr (kBlock == 2) {
            put(k, InterleaveLower(d, v0, v1));
            put(k + 1, InterleaveUpper(d, v0, v1));
        } else {
            const auto v2 = load_blocks(d, b + k + 2 * column_stride, step);
            const auto v3 = load_blocks(d, b + k + 3 * column_stride, step);
            const auto low02 = InterleaveLower(d, v0, v2), low13 = InterleaveLower(d, v1, v3);
            const auto up02 = InterleaveUpper(d, v0, v2), up13 = InterleaveUpper(d, v1, v3);
            put(k, InterleaveLower(d, low02, low13));
            put(k + 1, InterleaveUpper(d, low02, low13));
            put(k + 2, InterleaveLower(d, up02, up13));
            put(k + 3, InterleaveUpper(d, up02, up13));
        }
    }
    return k;
}

/// Whether transpose_columns can be used on lanes of T.
template <class T>
constexpr bool kHasWholeBlocks = hn::MaxLanes(Lanes<T>()) * sizeof(T) >= 16;

/// Writes `lanes` columns of b from row k on: panel[k * width + j].
template <class T, class Stored>
void pack_columns(const StridedOperand<Stored>& b, i64 k, i64 p, i64 columns, T* panel, i64 width) {
    const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<T>()));
    for (; k < p; ++k)
        for (i64 j = 0; j < lanes; ++j)
            panel[k * width + j] = j < columns ? element_of<T>(b.row(k)[j * b.column_stride]) : T(0);
}

/// transpose(b, to, width) writes the first rows of `lanes` columns as pack_columns does; returns how many.
template <class Stores, class T, class Stored, class Transpose>
HWY_INLINE void pack_panel_by(const StridedOperand<Stored>& b, i64 p, i64 columns, T* panel,
                              const Transpose& transpose) {
    if (b.column_stride == 1) return copy_rows<Stores>(b, p, columns, panel);
    const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<T>()));
    const i64 width = (columns + lanes - 1) / lanes * lanes;
    for (i64 column = 0; column < width; column += lanes) {
        const StridedOperand<Stored> from = b.from(0, column);
        const i64 done = column + lanes <= columns ? transpose(from, panel + column, width) : 0;
        pack_columns(from, done, p, columns - column, panel + column, width);
    }
}

template <class Stores, class T>
void pack_panel(const StridedOperand<T>& b, i64 p, i64 columns, T* panel) {
    const auto transpose = [p](const StridedOperand<T>& from, T* to, i64 width) HWY_ATTR -> i64 {
        if constexpr (kHasWholeBlocks<T>) {
            if (from.row_stride == 1 && !from.row_index)
                return transpose_columns(from.data, from.column_stride, p,
                                         [&](i64 row, Vector<T> values)
                                             HWY_ATTR { Stores::put_apart(values, to + row * width); });
        }
        (void)from, (void)to, (void)width;
        return 0;
    };
    pack_panel_by<Stores>(b, p, columns, panel, transpose);
}

/// Columns of a tile that end where a cache line does. As many are written at a time, since tiles share cache
/// sets.
template <class T>
constexpr i64 kTileColumnsOfLines = std::lcm<i64>(64, kRowTile * sizeof(T)) / (kRowTile * sizeof(T));

/// Calls use(d, row) for vectors of f32 that make up a column of a tile.
template <class Use>
HWY_INLINE void for_tile_vectors(const Use& use) {
    const hn::CappedTag<float, 4> four;
    const hn::CappedTag<float, 2> two;
    constexpr i64 kFours = kRowTile / 4 * 4;
    for (i64 row = 0; row < kFours; row += cpu::HWY_NAMESPACE::lanes_of(four)) use(four, row);
    for (i64 row = kFours; row < kRowTile; row += cpu::HWY_NAMESPACE::lanes_of(two)) use(two, row);
}

/// kRowTile elements that follow each other.
template <class T>
HWY_INLINE void copy_tile_column(const T* from, T* to) {
    std::memcpy(to, from, kRowTile * sizeof(T));
}
HWY_INLINE void copy_tile_column(const BFloat16* from, float* to) {
    for_tile_vectors([&](auto d, i64 row) HWY_ATTR {
        hn::StoreU(cpu::HWY_NAMESPACE::load(d, from + row, kRowTile), d, to + row);
    });
}

template <class T, class Stored>
void pack_rows(const StridedOperand<Stored>& a, i64 rows, i64 p, T* tiles) {
    constexpr i64 kTogether = kTileColumnsOfLines<T>;
    const i64 whole = a.row_stride == 1 ? rows / kRowTile * kRowTile : 0;
    for (i64 k = 0; k < p; k += kTogether) {
        const i64 columns = std::min(kTogether, p - k);
        const Stored* from[kTogether];
        for (i64 j = 0; j < columns; ++j) {
            from[j] = a.column(k + j);
            const Stored* const later = a.column(std::min(k + j + kRowsAhead / 2, p - 1));
            for (i64 line = 0; line < rows; line += 64 / static_cast<i64>(sizeof(Stored)))
                __builtin_prefetch(later + line, 0, 3);
        }
        for (i64 row = 0; row < whole; row += kRowTile) {
            T* const to = tiles + row * p + k * kRowTile;
            for (i64 j = 0; j < columns; ++j) copy_tile_column(from[j] + row, to + j * kRowTile);
        }
        for (i64 row = whole; row < rows; ++row) {
            T* const to = tiles + row / kRowTile * kRowTile * p + k * kRowTile + row % kRowTile;
            for (i64 j = 0; j < columns; ++j) to[j * kRowTile] = element_of<T>(from[j][row * a.row_stride]);
        }
    }
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
