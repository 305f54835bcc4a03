// Register tiles of fused multiply-adds, with vectors along the columns of c.
#include "runtime/cpu/gemm_kernel.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <type_traits>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/gemm_kernel.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>  // includes this file once more per instruction set
#include <hwy/highway.h>

#include "runtime/cpu/gemm_results-inl.h"
#include "runtime/cpu/gemm_tiles-inl.h"
#include "runtime/cpu/peak_loops.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {  // other files have functions of the same names here

// Rows of a tile one vector wide: at least eight sums hide the latency of the multiply-adds.
constexpr int kTallTile = 2 * kRowTile;
constexpr i64 kUnroll = 4;  // addends of one turn of the innermost loop

/// What a register tile does with two vectors of elements: one addend. With AVX-512 into the sum's own
/// register: left to choose, GCC sums into a factor's, and then moves and spills. (With AVX2 it does not, and
/// reads half of the factors as it multiplies.)
constexpr bool kSumsInPlace = HWY_TARGET == HWY_AVX3;
template <class T>
struct MultiplyAdd {
    using Element = T;
    static HWY_INLINE Vector<T> add(Vector<T> a, Vector<T> b, Vector<T> sum) {
        if constexpr (!kSumsInPlace) {
            return hn::MulAdd(a, b, sum);
        } else if constexpr (sizeof(T) == sizeof(float)) {
            asm("vfmadd231ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
        } else {
            asm("vfmadd231pd %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
        }
        return sum;
    }
};

/// Or of pairs of bf16: two addends, by an instruction that Highway does not have yet.
constexpr bool kHasDotProduct = HWY_TARGET == HWY_AVX3;
struct PairProduct {
    using Element = float;
    template <class V>
    static HWY_INLINE V add(V a, V b, V sum) {
        asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
        return sum;
    }
    /// What a rounding store does to such a sum, which is no denormal: to the nearest, ties to even.
    template <class V>
    static HWY_INLINE void store_rounded(V sum, BFloat16* to) {
        const hn::DFromV<V> d;
        hn::StoreU(cpu::HWY_NAMESPACE::rounded_by_instruction(d, sum),
                   hn::Rebind<std::uint16_t, decltype(d)>(), &to->bits);
    }
};

/// The running sums of one register tile of kRows x kVectors vectors.
template <class T, int kRows, int kVectors>
struct Tile {
    Vector<T> sums[kRows][kVectors];

    HWY_INLINE void start(const PanelProduct<T>& product) {
        const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<T>()));
#pragma GCC unroll 12
        for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
            for (int j = 0; j < kVectors; ++j) {
                sums[i][j] = product.accumulate
                                 ? load_columns<T>(product.c + i * product.c_row_stride + j * lanes,
                                                   product.columns - j * lanes)
                                 : hn::Zero(Lanes<T>());
            }
        }
    }

    /// One more p: `factor(i)` is where row i's element stands.
    template <class Step, class Factor>
    HWY_INLINE void add(const T* b, const Factor& factor) {
        const Lanes<T> d;
        const i64 lanes = static_cast<i64>(hn::Lanes(d));
        Vector<T> b_row[kVectors];
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) b_row[j] = hn::LoadU(d, b + j * lanes);
#pragma GCC unroll 12
        for (int i = 0; i < kRows; ++i) {
            const Vector<T> a = hn::Set(d, *factor(i));
#pragma GCC unroll 4
            for (int j = 0; j < kVectors; ++j) sums[i][j] = Step::add(a, b_row[j], sums[i][j]);
        }
    }

    /// Whole vectors go to c from here, rounded ones where that is one instruction. All else goes through
    /// memory: in functions that read the sums they would not stay in registers.
    template <class Step>
    HWY_INLINE void finish(const PanelProduct<T>& product) const {
        const Lanes<T> d;
        const i64 lanes = static_cast<i64>(hn::Lanes(d));
        const bool whole = product.columns == kVectors * lanes;
        if constexpr (std::is_same_v<Step, PairProduct>) {
            if (whole && product.rounded) {
                BFloat16* to = product.rounded;
#pragma GCC unroll 12
                for (int i = 0; i < kRows; ++i, to += product.rounded_row_stride) {
#pragma GCC unroll 4
                    for (int j = 0; j < kVectors; ++j) Step::store_rounded(sums[i][j], to + j * lanes);
                }
                return;
            }
        }
        const bool plain = whole && !product.sum && !product.rounded;
        alignas(64) T values[kRows * kVectors * hn::MaxLanes(Lanes<T>())];
        T* const to = plain ? product.c : values;
        const i64 stride = plain ? product.c_row_stride : kVectors * lanes;
#pragma GCC unroll 12
        for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
            for (int j = 0; j < kVectors; ++j) hn::StoreU(sums[i][j], d, to + i * stride + j * lanes);
        }
        if (!plain) put_tile(product, values, kRows, kVectors * lanes);
    }
};

/// The addends that come in groups of kUnroll whose addresses the compiler knows: those of a panel without
/// gaps. Few other instructions then share the ports of the multiply-adds. Returns how many were added.
template <class Step, class T, int kRows, int kVectors, class Factor, class Fetch>
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
            tile.template add<Step>(b + ahead * width,
                                    [&](int i) HWY_ATTR { return factor_of(i, k, ahead); });
            // Nothing is loaded earlier: the registers are all taken, and the panel would be read twice.
            std::atomic_signal_fence(std::memory_order_seq_cst);
        }
        b += kUnroll * width;
    }
    return groups * kUnroll;
}

/// The rows of the sums below this tile, which the next tile will add to.
template <int kRows, class T, class Sum>
HWY_INLINE void fetch_next_sums(const PanelProduct<T>& product, const Sum* sum) {
    constexpr i64 kLine = 64 / sizeof(Sum);
    for (int i = kRows; i < 2 * kRows; ++i)
        for (i64 column = 0; column < product.columns; column += kLine)
            __builtin_prefetch(sum + i * product.sum_row_stride + column, 1, 3);
}
template <int kRows, class T>
HWY_INLINE void fetch_next_sums(const PanelProduct<T>& product) {
    if (product.sum.wide) return fetch_next_sums<kRows>(product, product.sum.wide);
    fetch_next_sums<kRows>(product, product.sum.real);
}

/// Whether a stands as pack_rows leaves it.
template <class T>
HWY_INLINE bool in_tiles(const PanelProduct<T>& product) {
    return product.a.row_stride == 1 && product.a.column_stride == kRowTile && product.a_tile_stride > 0;
}

/// One register tile of kRows x kVectors vectors over the whole of p.
template <class Step, int kRows, int kVectors>
void multiply_tile(const PanelProduct<typename Step::Element>& product) {
    using T = typename Step::Element;
    const i64 a_step = product.a.column_stride, b_step = product.panel_stride;
    const i64 width = kVectors * static_cast<i64>(hn::Lanes(Lanes<T>()));
    Tile<T, kRows, kVectors> tile;
    tile.start(product);
    if (kRows >= kRowTile && product.sum && product.sum_start != SumStart::streamed)
        fetch_next_sums<kRows>(product);
    const T* a[kRows];
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i)
        a[i] = kRows > kRowTile && i >= kRowTile && in_tiles(product)
                   ? product.a.row(i - kRowTile) + product.a_tile_stride
                   : product.a.row(i);
    i64 k = 0;
    if (b_step == width && a_step == 1) {
        const auto factor = [&](int i, i64 first, i64 ahead) HWY_ATTR { return a[i] + first + ahead; };
        if (kRows >= kRowTile && product.fetches_rows) {
            const T* below[kRows];
            for (int i = 0; i < kRows; ++i) below[i] = product.a.row(kRows + i);
            constexpr i64 kLine = 64 / sizeof(T), kElements = kRows * kUnroll;
            k = add_unrolled<Step>(product, tile, factor, [&](i64 group) HWY_ATTR {
                for (i64 line = group * kElements / kLine; line < (group + 1) * kElements / kLine; ++line)
                    __builtin_prefetch(below[line % kRows] + line / kRows * kLine, 0, 3);
            });
        } else {
            k = add_unrolled<Step>(product, tile, factor, [](i64) HWY_ATTR {});
        }
    } else if (b_step == width && kRows <= kRowTile && in_tiles(product)) {
        k = add_unrolled<Step>(
            product, tile,
            [&](int i, i64 first, i64 ahead)
                HWY_ATTR { return a[0] + first * kRowTile + (ahead * kRowTile + i); },
            [](i64) HWY_ATTR {});
    } else if (b_step == width && in_tiles(product)) {
        k = add_unrolled<Step>(
            product, tile,
            [&](int i, i64 first, i64 ahead) HWY_ATTR {
                return a[i / kRowTile * kRowTile] + first * kRowTile + (ahead * kRowTile + i % kRowTile);
            },
            [](i64) HWY_ATTR {});
    }
    for (; k < product.p; ++k)
        tile.template add<Step>(product.panel + k * b_step,
                                [&](int i) HWY_ATTR { return a[i] + k * a_step; });
    tile.template finish<Step>(product);
}

template <class Step, int kVectors, std::size_t... kIndex>
constexpr auto tiles_of_all_heights(std::index_sequence<kIndex...>) {
    return std::array{&multiply_tile<Step, static_cast<int>(kIndex) + 1, kVectors>...};
}

template <class Step, int kVectors>
void multiply_rows(const PanelProduct<typename Step::Element>& product) {
    using T = typename Step::Element;
    constexpr int kHeight = kVectors == 1 ? kTallTile : kRowTile;
    constexpr auto tiles = tiles_of_all_heights<Step, kVectors>(std::make_index_sequence<kHeight>{});
    PanelProduct<T> tile = product;
    const bool packed = in_tiles(product);
    const i64 tile_count = (product.rows + kHeight - 1) / kHeight;
    tile.next_elements = (product.next_elements + tile_count - 1) / std::max<i64>(tile_count, 1);
    for (i64 left = tile_count, rest = product.rows; left > 0; --left, rest -= tile.rows) {
        // Of equal heights, about: a tile of one row waits for its sums most of the time.
        tile.rows = packed ? std::min<i64>(kHeight, rest) : (rest + left - 1) / left;
        tile.fetches_rows = product.fetches_rows && 2 * kHeight <= rest;
        tiles[static_cast<std::size_t>(tile.rows - 1)](tile);
        if (packed) {
            tile.a.data += kHeight / kRowTile * product.a_tile_stride;
        } else {
            tile.a = tile.a.from(tile.rows, 0);
        }
        tile.c += tile.rows * product.c_row_stride;
        if (tile.rounded) tile.rounded += tile.rows * product.rounded_row_stride;
        tile.sum = tile.sum.from(tile.rows * product.sum_row_stride);
        tile.next += tile.next_elements;
    }
}

template <class Step>
void multiply_panel(const PanelProduct<typename Step::Element>& product) {
    const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<typename Step::Element>()));
    if (product.columns <= lanes) return multiply_rows<Step, 1>(product);
    if (product.columns <= 2 * lanes) return multiply_rows<Step, 2>(product);
    if constexpr (kPanelVectors > 3) {
        if (product.columns > 3 * lanes) return multiply_rows<Step, kPanelVectors>(product);
    }
    multiply_rows<Step, 3>(product);
}

template <class T>
NarrowOperandKernels<T> narrow_kernels() {
    NarrowOperandKernels<T> narrow = narrow_operand_kernels<T>();
    if constexpr (sizeof(T) == sizeof(float)) {
        narrow.multiply_tiles = &multiply_panel_by_tiles<T, cpu::HWY_NAMESPACE::PlainRounding>;
        narrow.transpose_pair_rows = &transpose_pair_rows<T>;
    }
    if constexpr (kHasDotProduct && sizeof(T) == sizeof(float)) {
        if (has_bf16_dot_product()) {
            narrow.multiply_pairs = &multiply_panel<PairProduct>;
            narrow.multiply_tiles = &multiply_panel_by_tiles<T, RoundingOfTiles>;
        }
    }
    return narrow;
}

template <class T>
const GemmKernels<T>& kernels() {
    static const GemmKernels<T> table{kRowTile,
                                      kPanelVectors * static_cast<i64>(hn::Lanes(Lanes<T>())),
                                      static_cast<i64>(hn::Lanes(Lanes<T>())),
                                      &multiply_panel<MultiplyAdd<T>>,
                                      &pack_panel<IntoCaches, T>,
                                      &pack_panel<PastCaches, T>,
                                      &pack_rows<T, T>,
                                      narrow_kernels<T>()};
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
