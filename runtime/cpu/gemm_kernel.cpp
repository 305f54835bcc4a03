// Register tiles of fused multiply-adds, with vectors along the columns of c; packing of column panels.
#include "runtime/cpu/gemm_kernel.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/gemm_kernel.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>  // includes this file once more per instruction set
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {  // other files have functions of the same names here
namespace hn = hwy::HWY_NAMESPACE;

// 8 x 3 accumulators fill the 32 registers of AVX-512, 4 x 3 the 16 of AVX2.
constexpr int kRowTile = HWY_MAX_BYTES >= 64 ? 8 : 4;
constexpr int kPanelVectors = 3;
// Rows of a tile one vector wide: eight sums hide the latency of the multiply-adds.
constexpr int kTallTile = 8;
constexpr i64 kUnroll = 4;  // addends of one turn of the innermost loop

template <class T>
using Lanes = hn::ScalableTag<T>;
template <class T>
using Vector = hn::Vec<Lanes<T>>;

template <class T>
HWY_INLINE Vector<T> load_columns(const T* from, i64 columns) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    if (columns >= lanes) return hn::LoadU(d, from);
    return hn::MaskedLoad(hn::FirstN(d, static_cast<std::size_t>(std::max<i64>(columns, 0))), d, from);
}

template <class T>
HWY_INLINE void store_columns(Vector<T> value, T* to, i64 columns) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    if (columns >= lanes)
        hn::StoreU(value, d, to);
    else if (columns > 0)
        hn::BlendedStore(value, hn::FirstN(d, static_cast<std::size_t>(columns)), d, to);
}

/// Adds a vector of results to their f64 sums.
template <class T>
HWY_INLINE void add_to_sum(Vector<T> value, double* sum, i64 columns) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    if constexpr (sizeof(T) == 8) {
        store_columns(hn::Add(load_columns(sum, columns), value), sum, columns);
    } else if constexpr (hn::MaxLanes(Lanes<T>()) == 1) {
        if (columns > 0) *sum += static_cast<double>(hn::GetLane(value));
    } else {
        const hn::Half<Lanes<T>> half;
        const auto lower = hn::PromoteTo(Lanes<double>(), hn::LowerHalf(half, value));
        const auto upper = hn::PromoteTo(Lanes<double>(), UpperHalf(half, value));
        store_columns(hn::Add(load_columns(sum, columns), lower), sum, columns);
        store_columns(hn::Add(load_columns(sum + lanes / 2, columns - lanes / 2), upper), sum + lanes / 2,
                      columns - lanes / 2);
    }
}

/// The running sums of one register tile of kRows x kVectors vectors.
template <class T, int kRows, int kVectors>
struct Tile {
    Vector<T> sums[kRows][kVectors];

    HWY_INLINE void start(const PanelProduct<T>& product) {
        const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<T>()));
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
            for (int j = 0; j < kVectors; ++j) {
                sums[i][j] = hn::Zero(Lanes<T>());
                if (product.accumulate)
                    sums[i][j] = load_columns(product.c + i * product.c_row_stride + j * lanes,
                                              product.columns - j * lanes);
            }
        }
    }

    /// One more p: `factor(i)` is where row i's element stands.
    template <class Factor>
    HWY_INLINE void add(const T* b, const Factor& factor) {
        const Lanes<T> d;
        const i64 lanes = static_cast<i64>(hn::Lanes(d));
        Vector<T> b_row[kVectors];
#pragma GCC unroll 3
        for (int j = 0; j < kVectors; ++j) b_row[j] = hn::LoadU(d, b + j * lanes);
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
            const Vector<T> a = hn::Set(d, *factor(i));
#pragma GCC unroll 3
            for (int j = 0; j < kVectors; ++j) sums[i][j] = hn::MulAdd(a, b_row[j], sums[i][j]);
        }
    }

    HWY_INLINE void finish(const PanelProduct<T>& product) const {
        const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<T>()));
#pragma GCC unroll 8
        for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
            for (int j = 0; j < kVectors; ++j) {
                const i64 columns = product.columns - j * lanes;
                if (product.sum) {
                    add_to_sum<T>(sums[i][j], product.sum + i * product.sum_row_stride + j * lanes, columns);
                } else {
                    store_columns(sums[i][j], product.c + i * product.c_row_stride + j * lanes, columns);
                }
            }
        }
    }
};

/// The addends that come in groups of kUnroll whose addresses the compiler knows: those of a panel without
/// gaps. Few other instructions then share the ports of the multiply-adds. Returns how many were added.
template <class T, int kRows, int kVectors, class Factor, class Fetch>
HWY_INLINE i64 add_unrolled(const PanelProduct<T>& product, Tile<T, kRows, kVectors>& tile,
                            const Factor& factor_of, const Fetch& fetch) {
    const i64 width = kVectors * static_cast<i64>(hn::Lanes(Lanes<T>()));
    const i64 groups = product.p / kUnroll;
    const i64 step = groups > 0 ? (product.next_elements + groups - 1) / groups : 0;
    const T* b = product.panel;
    const T* next = product.next_elements > 0 ? product.next : b;
    for (i64 k = 0; k + kUnroll <= product.p; k += kUnroll) {
        __builtin_prefetch(next, 0, 2);
        next += step;
        fetch(k / kUnroll);
#pragma GCC unroll 4
        for (i64 ahead = 0; ahead < kUnroll; ++ahead) {
            tile.add(b + ahead * width, [&](int i) HWY_ATTR { return factor_of(i, k, ahead); });
            // Nothing is loaded before its turn: all registers are taken, and b would be read again and
            // again.
            std::atomic_signal_fence(std::memory_order_seq_cst);
        }
        b += kUnroll * width;
    }
    return groups * kUnroll;
}

/// The rows of c (or of its sums) below this tile, which the next tile will start from.
template <class T, int kRows, int kVectors>
HWY_INLINE void fetch_next_rows(const PanelProduct<T>& product) {
    constexpr i64 kLine = 64;
    const auto fetch = [](const auto* first, i64 stride, i64 bytes) {
        for (int i = 0; i < kRows; ++i)
            for (i64 byte = 0; byte < bytes; byte += kLine)
                __builtin_prefetch(reinterpret_cast<const char*>(first + (kRows + i) * stride) + byte, 1, 3);
    };
    if (product.sum) {
        fetch(product.sum, product.sum_row_stride, product.columns * static_cast<i64>(sizeof(double)));
    } else {
        fetch(product.c, product.c_row_stride, product.columns * static_cast<i64>(sizeof(T)));
    }
}

/// Whether a stands as pack_rows leaves it.
template <class T>
HWY_INLINE bool in_tiles(const PanelProduct<T>& product) {
    return product.a.row_stride == 1 && product.a.column_stride == kRowTile && product.a_tile_stride > 0;
}

/// One register tile of kRows x kVectors vectors over the whole of p.
template <class T, int kRows, int kVectors>
void multiply_tile(const PanelProduct<T>& product) {
    const i64 a_step = product.a.column_stride, b_step = product.panel_stride;
    const i64 width = kVectors * static_cast<i64>(hn::Lanes(Lanes<T>()));
    Tile<T, kRows, kVectors> tile;
    tile.start(product);
    if (kRows >= kRowTile) fetch_next_rows<T, kRows, kVectors>(product);
    const T* a[kRows];
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
        a[i] = kRows > kRowTile && i >= kRowTile && in_tiles(product)
                   ? product.a.row(i - kRowTile) + product.a_tile_stride
                   : product.a.row(i);
    i64 k = 0;
    if (b_step == width && a_step == 1) {
        const auto factor = [&](int i, i64 first, i64 ahead) HWY_ATTR { return a[i] + first + ahead; };
        if (kRows == kRowTile && product.fetches_rows) {
            const T* below[kRows];
            for (int i = 0; i < kRows; ++i) below[i] = product.a.row(kRows + i);
            constexpr i64 kLine = 64 / sizeof(T), kLines = std::max<i64>(1, kRows * kUnroll / kLine);
            k = add_unrolled(product, tile, factor, [&](i64 group) HWY_ATTR {
                for (i64 line = group * kLines; line < (group + 1) * kLines; ++line)
                    __builtin_prefetch(below[line % kRows] + line / kRows * kLine, 0, 3);
            });
        } else {
            k = add_unrolled(product, tile, factor, [](i64) HWY_ATTR {});
        }
    } else if (b_step == width && kRows <= kRowTile && in_tiles(product)) {
        k = add_unrolled(
            product, tile,
            [&](int i, i64 first, i64 ahead)
                HWY_ATTR { return a[0] + first * kRowTile + (ahead * kRowTile + i); },
            [](i64) HWY_ATTR {});
    } else if (b_step == width && in_tiles(product)) {
        k = add_unrolled(
            product, tile,
            [&](int i, i64 first, i64 ahead) HWY_ATTR {
                return a[i / kRowTile * kRowTile] + first * kRowTile + (ahead * kRowTile + i % kRowTile);
            },
            [](i64) HWY_ATTR {});
    }
    for (; k < product.p; ++k)
        tile.add(product.panel + k * b_step, [&](int i) HWY_ATTR { return a[i] + k * a_step; });
    tile.finish(product);
}

template <class T, int kVectors, std::size_t... kIndex>
constexpr auto tiles_of_all_heights(std::index_sequence<kIndex...>) {
    return std::array{&multiply_tile<T, static_cast<int>(kIndex) + 1, kVectors>...};
}

template <class T, int kVectors>
void multiply_rows(const PanelProduct<T>& product) {
    constexpr int kHeight = kVectors == 1 ? std::max(kTallTile, kRowTile) : kRowTile;
    constexpr auto tiles = tiles_of_all_heights<T, kVectors>(std::make_index_sequence<kHeight>{});
    PanelProduct<T> tile = product;
    const bool packed = in_tiles(product);
    const i64 tile_count = std::max<i64>(product.rows / kHeight, 1);
    tile.next_elements = (product.next_elements + tile_count - 1) / tile_count;
    for (i64 row = 0; row < product.rows; row += kHeight) {
        tile.rows = std::min<i64>(kHeight, product.rows - row);
        tile.fetches_rows = product.fetches_rows && row + 2 * kHeight <= product.rows;
        tiles[static_cast<std::size_t>(tile.rows - 1)](tile);
        if (packed) {
            tile.a.data += kHeight / kRowTile * product.a_tile_stride;
        } else {
            tile.a = tile.a.from(kHeight, 0);
        }
        tile.c += kHeight * product.c_row_stride;
        if (tile.sum) tile.sum += kHeight * product.sum_row_stride;
        tile.next += tile.next_elements;
    }
}

template <class T>
void multiply_panel(const PanelProduct<T>& product) {
    const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<T>()));
    if (product.columns <= lanes) return multiply_rows<T, 1>(product);
    if (product.columns <= 2 * lanes) return multiply_rows<T, 2>(product);
    multiply_rows<T, 3>(product);
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

template <class T>
const GemmKernels<T>& kernels() {
    static const GemmKernels<T> table{kRowTile,
                                      kPanelVectors * static_cast<i64>(hn::Lanes(Lanes<T>())),
                                      static_cast<i64>(hn::Lanes(Lanes<T>())),
                                      &multiply_panel<T>,
                                      &pack_panel<T>,
                                      &pack_rows<T>};
    return table;
}
const GemmKernels<float>& kernels_f32() {
    return kernels<float>();
}
const GemmKernels<double>& kernels_f64() {
    return kernels<double>();
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic {
namespace {

HWY_EXPORT(kernels_f32);
HWY_EXPORT(kernels_f64);

}  // namespace

template <>
const GemmKernels<float>& gemm_kernels<float>() {
    return HWY_DYNAMIC_DISPATCH(kernels_f32)();
}
template <>
const GemmKernels<double>& gemm_kernels<double>() {
    return HWY_DYNAMIC_DISPATCH(kernels_f64)();
}

}  // namespace moesaic
#endif
