// Panels of pairs in the order of a matrix unit, compiled once per target.
#if defined(MOESAIC_RUNTIME_CPU_GEMM_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOESAIC_RUNTIME_CPU_GEMM_TILES_INL_H_
#undef MOESAIC_RUNTIME_CPU_GEMM_TILES_INL_H_
#else
#define MOESAIC_RUNTIME_CPU_GEMM_TILES_INL_H_
#endif

#include "runtime/cpu/gemm_narrow-inl.h"
#include "runtime/cpu/gemm_results-inl.h"
#include "runtime/cpu/tile_products.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {

/// How sums are rounded where the CPU has an instruction: those of tiles are no denormal numbers.
struct RoundingOfTiles {
    template <class D>
    static HWY_INLINE cpu::HWY_NAMESPACE::BFloat16Bits<D> round(D d, hn::Vec<D> value) {
        return cpu::HWY_NAMESPACE::rounded_by_instruction(d, value);
    }
    /// Two vectors as one, `first` in its lower half.
    template <class D>
    static HWY_INLINE auto round_both(D /*d*/, hn::Vec<D> first, hn::Vec<D> second) {
        auto rounded = hn::Zero(hn::Repartition<std::uint16_t, D>());
        asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(rounded.raw) : "v"(first.raw), "v"(second.raw));
        return rounded;
    }
};

constexpr i64 kRowsTogether = 2 * kTileRows;
constexpr i64 kMostColumns = 4 * kTileValues;
// Lines of the next panel for sixteen pairs, at most: more keep loads waiting. Rows that are multiplied at
// once wait for nothing else.
constexpr i64 kMostLines = 6, kMostLinesOfFewRows = 1;

/// Pairs that do not fill a tile, with zeros beyond them: some columns of rows, or some rows of a panel.
template <class T, i64 kRows, i64 kColumns>
struct PairsLeft {
    alignas(64) T values[kRows * kColumns];

    void copy(const T* from, i64 stride, i64 rows, i64 columns) {
        const Lanes<T> d;
        for (i64 row = 0; row < kRows; ++row)
            for (i64 column = 0; column < kColumns; column += static_cast<i64>(hn::Lanes(d)))
                hn::Store(load_columns(from + row * stride + column, row < rows ? columns - column : 0), d,
                          values + row * kColumns + column);
    }
};

/// NarrowOperandKernels::multiply_tiles.
template <class T, class Rounding>
class PanelByTiles {
  public:
    explicit PanelByTiles(const PanelProduct<T>& product)
        : product_(product), left_(product.p % kTileValues) {
        tile_.pairs = product.p - left_;
        tile_.whole.a_row_stride = product.a.row_stride;
        tile_.whole.panel_stride = product.panel_stride;
        if (left_ > 0) {
            panel_left_.copy(product.panel + tile_.pairs * product.panel_stride, product.panel_stride, left_,
                             product.panel_stride);
            tile_.left = {rows_left_.values, kTileValues, nullptr, kMostColumns};
        }
        const i64 rows = (product.rows + kRowsTogether - 1) / kRowsTogether;
        const i64 steps = std::max<i64>(1, 2 * rows * (tile_.pairs / kTileValues));
        tile_.next = product.next;
        tile_.next_lines = std::min<i64>(product.rows > kRowsTogether ? kMostLines : kMostLinesOfFewRows,
                                         (product.next_elements / kTileValues + steps - 1) / steps);
    }

    void run() {
        for (i64 row = 0; row < product_.rows; row += kRowsTogether) {
            tile_.rows = std::min(kRowsTogether, product_.rows - row);
            tile_.whole.a = product_.a.row(row);
            if (left_ > 0)
                rows_left_.copy(tile_.whole.a + tile_.pairs, product_.a.row_stride, tile_.rows, left_);
            const i64 together = (tile_.rows > kTileRows ? 2 : 4) * kTileValues;
            for (i64 column = 0; column < product_.columns; column += together)
                multiply(row, column, std::min(together, product_.columns - column));
        }
    }

  private:
    /// Whole tiles go to c at once, all else through memory.
    void multiply(i64 row, i64 column, i64 columns) {
        const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<T>()));
        const i64 width = (columns + lanes - 1) / lanes * lanes;
        PanelProduct<T> part = product_;
        part.columns = columns;
        part.c += row * product_.c_row_stride + column;
        tile_.columns = width;
        tile_.whole.panel = product_.panel + column;
        if (left_ > 0) tile_.left.panel = panel_left_.values + column;
        tile_.accumulate = product_.accumulate;
        const bool plain = columns == width && !product_.sum && !product_.rounded;
        tile_.c = plain ? part.c : results_;
        tile_.c_row_stride = plain ? product_.c_row_stride : width;
        if (!plain && product_.accumulate) load_results(part, width);
        multiply_tiles(tile_);
        tile_.next += tile_.next_lines * tile_.pairs;
        if (plain) return;
        if (part.rounded) part.rounded += row * product_.rounded_row_stride + column;
        part.sum = part.sum.from(row * product_.sum_row_stride + column);
        put_tile<Rounding>(part, results_, tile_.rows, width);
    }
    void load_results(const PanelProduct<T>& part, i64 width) {
        for (i64 row = 0; row < tile_.rows; ++row)
            for (i64 column = 0; column < width; column += static_cast<i64>(hn::Lanes(Lanes<T>())))
                hn::Store(load_columns(part.c + row * part.c_row_stride + column, part.columns - column),
                          Lanes<T>(), results_ + row * width + column);
    }

    const PanelProduct<T>& product_;
    i64 left_;  // pairs
    TileProduct tile_;
    PairsLeft<T, kRowsTogether, kTileValues> rows_left_;
    PairsLeft<T, kTileValues, kMostColumns> panel_left_;
    alignas(64) T results_[kRowsTogether * 2 * kTileValues];
};

template <class T, class Rounding>
void multiply_panel_by_tiles(const PanelProduct<T>& product) {
    PanelByTiles<T, Rounding>(product).run();
}

/// Sixteen vectors of sixteen lanes, in place. Names that other targets lack are left to argument-dependent
/// lookup.
template <class V>
HWY_INLINE void transpose_vectors(V* vectors) {
    const hn::DFromV<V> d;
    V blocks[16];  // [4 * r + g]: of four vectors from 4 * g on, lanes r, 4 + r, 8 + r and 12 + r
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
        const V* const v = vectors + 4 * g;
        const V low02 = InterleaveLower(d, v[0], v[2]), low13 = InterleaveLower(d, v[1], v[3]);
        const V up02 = InterleaveUpper(d, v[0], v[2]), up13 = InterleaveUpper(d, v[1], v[3]);
        blocks[g] = InterleaveLower(d, low02, low13);
        blocks[4 + g] = InterleaveUpper(d, low02, low13);
        blocks[8 + g] = InterleaveLower(d, up02, up13);
        blocks[12 + g] = InterleaveUpper(d, up02, up13);
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
        const V* const b = blocks + 4 * r;
        const V even01 = OddEvenBlocks(SwapAdjacentBlocks(b[1]), b[0]);
        const V odd01 = OddEvenBlocks(b[1], SwapAdjacentBlocks(b[0]));
        const V even23 = OddEvenBlocks(SwapAdjacentBlocks(b[3]), b[2]);
        const V odd23 = OddEvenBlocks(b[3], SwapAdjacentBlocks(b[2]));
        vectors[r] = ConcatLowerLower(d, even23, even01);
        vectors[4 + r] = ConcatLowerLower(d, odd23, odd01);
        vectors[8 + r] = ConcatUpperUpper(d, even23, even01);
        vectors[12 + r] = ConcatUpperUpper(d, odd23, odd01);
    }
}

/// Of a block of sixteen rows of sixteen pairs: rows of which `rows` are wanted.
template <class T>
HWY_INLINE void transpose_pairs_block(const BFloat16* const* columns, i64 row, i64 rows, T* to, i64 stride) {
    const Lanes<T> d;
    const auto column = [&](i64 index) HWY_ATTR {
        return columns[index] ? cpu::HWY_NAMESPACE::load(d, columns[index] + row, rows) : hn::Zero(d);
    };
    Vector<T> vectors[kTileValues];
#pragma GCC unroll 16
    for (i64 pair = 0; pair < kTileValues; ++pair)
        vectors[pair] = LowerFirst::pairs_of(d, column(2 * pair), column(2 * pair + 1));
    transpose_vectors(vectors);
    for (i64 i = 0; i < std::min(rows, kTileRows); ++i) hn::StoreU(vectors[i], d, to + (row + i) * stride);
}

/// As copy_pair_rows, of an a whose columns stand apart; stride is at least round_up(ceil(p / 2), lanes).
template <class T>
void transpose_pair_rows(const StridedOperand<BFloat16>& a, i64 rows, i64 p, T* to, i64 stride) {
    for (i64 first = 0; first < p; first += 2 * kTileValues) {
        const BFloat16* columns[2 * kTileValues];
        for (i64 k = 0; k < 2 * kTileValues; ++k) {
            columns[k] = first + k < p ? a.column(first + k) : nullptr;
            const BFloat16* const later = a.column(std::min(first + k + 2 * kTileValues, p - 1));
            for (i64 line = 0; line < rows; line += 64 / static_cast<i64>(sizeof(BFloat16)))
                __builtin_prefetch(later + line * a.row_stride, 0, 3);
        }
        if constexpr (hn::MaxLanes(Lanes<T>()) == kTileValues) {
            if (a.row_stride == 1) {
                for (i64 row = 0; row < rows; row += kTileRows)
                    transpose_pairs_block(columns, row, rows - row, to + first / 2, stride);
                continue;
            }
        }
        for (i64 row = 0; row < rows; ++row)
            for (i64 pair = 0; pair < std::min(kTileValues, (p - first + 1) / 2); ++pair)
                to[row * stride + first / 2 + pair] = LowerFirst::pair_of(
                    columns[2 * pair] ? columns[2 * pair][row * a.row_stride] : BFloat16{},
                    columns[2 * pair + 1] ? columns[2 * pair + 1][row * a.row_stride] : BFloat16{});
    }
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
