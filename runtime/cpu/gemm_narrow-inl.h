// How bf16 operands of a product are packed, compiled once per target: widened into panels and tiles, or kept
// as pairs.
#if defined(MOESAIC_RUNTIME_CPU_GEMM_NARROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOESAIC_RUNTIME_CPU_GEMM_NARROW_INL_H_
#undef MOESAIC_RUNTIME_CPU_GEMM_NARROW_INL_H_
#else
#define MOESAIC_RUNTIME_CPU_GEMM_NARROW_INL_H_
#endif

#include <bit>

#include "runtime/cpu/gemm_packing-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {

// Two bf16 of consecutive k are one 32-bit lane, as an f32 whose value means nothing. In memory the first k
// is the lower half.
using Pairs = hn::RebindToUnsigned<Lanes<float>>;

HWY_INLINE Vector<float> lower_halves(Vector<float> both) {
    return hn::BitCast(Lanes<float>(), hn::ShiftLeft<16>(hn::BitCast(Pairs(), both)));
}
HWY_INLINE Vector<float> upper_halves(Vector<float> both) {
    return hn::BitCast(Lanes<float>(), hn::And(hn::BitCast(Pairs(), both), hn::Set(Pairs(), 0xffff0000u)));
}

/// PairOrder::upper_first.
struct UpperFirst {
    static constexpr i64 kFirst = 1;  ///< the place of a pair's first, of the two in memory
    template <class D>
    static HWY_INLINE hn::Vec<D> pairs_of(D d, hn::Vec<D> first, hn::Vec<D> second) {
        const hn::RebindToUnsigned<D> pairs;
        return hn::BitCast(d,
                           hn::Or(hn::BitCast(pairs, first), hn::ShiftRight<16>(hn::BitCast(pairs, second))));
    }
    static HWY_INLINE Vector<float> from_memory(Vector<float> both) {
        return hn::BitCast(Lanes<float>(), hn::RotateRight<16>(hn::BitCast(Pairs(), both)));
    }
    static HWY_INLINE Vector<float> first_of(Vector<float> both) { return upper_halves(both); }
    static HWY_INLINE Vector<float> second_of(Vector<float> both) { return lower_halves(both); }
    static HWY_INLINE float pair_of(BFloat16 first, BFloat16 second) {
        return std::bit_cast<float>(static_cast<u32>(first.bits) << 16 | second.bits);
    }
};
/// PairOrder::lower_first.
struct LowerFirst {
    static constexpr i64 kFirst = 0;
    template <class D>
    static HWY_INLINE hn::Vec<D> pairs_of(D d, hn::Vec<D> first, hn::Vec<D> second) {
        return UpperFirst::pairs_of(d, second, first);
    }
    static HWY_INLINE Vector<float> from_memory(Vector<float> both) { return both; }
    static HWY_INLINE Vector<float> first_of(Vector<float> both) { return lower_halves(both); }
    static HWY_INLINE Vector<float> second_of(Vector<float> both) { return upper_halves(both); }
    static HWY_INLINE float pair_of(BFloat16 first, BFloat16 second) {
        return UpperFirst::pair_of(second, first);
    }
};
template <class Use>
HWY_INLINE void with_order(PairOrder order, const Use& use) {
    if (order == PairOrder::upper_first) return use(UpperFirst{});
    use(LowerFirst{});
}

/// As transpose_columns, of pairs.
template <class Put>
HWY_INLINE i64 transpose_pairs(const StridedOperand<BFloat16>& b, i64 p, const Put& put) {
    if constexpr (kHasWholeBlocks<float>) {
        if (b.row_stride == 1 && !b.row_index && b.column_stride % 2 == 0)
            return 2 *
                   transpose_columns(reinterpret_cast<const float*>(b.data), b.column_stride / 2, p / 2, put);
    }
    (void)p, (void)put;
    return 0;
}

void pack_narrow_panel(const StridedOperand<BFloat16>& b, i64 p, i64 columns, float* panel) {
    const Lanes<float> d;
    pack_panel_by<IntoCaches>(b, p, columns, panel,
                              [&](const StridedOperand<BFloat16>& from, float* to, i64 width) HWY_ATTR {
                                  return transpose_pairs(from, p, [&](i64 row, Vector<float> pairs) HWY_ATTR {
                                      hn::StoreU(lower_halves(pairs), d, to + 2 * row * width);
                                      hn::StoreU(upper_halves(pairs), d, to + (2 * row + 1) * width);
                                  });
                              });
}

/// Calls copy(row + k, rest, to + k / together) for every vector of a row that begins at k, where `together`
/// elements of a row become one; `rest` elements are left.
template <i64 together, class Copy>
HWY_INLINE void copy_rows_by(const StridedOperand<BFloat16>& a, i64 rows, i64 p, float* to, i64 stride,
                             const Copy& copy) {
    const i64 elements = together * static_cast<i64>(hn::Lanes(Lanes<float>()));
    constexpr i64 kLine = 64 / sizeof(BFloat16);
    for (i64 row = 0; row < rows; ++row, to += stride) {
        const BFloat16* const from = a.row(row);
        const BFloat16* const later = a.row(std::min(row + 1, rows - 1));
        for (i64 k = 0; k < p; k += elements) {
            if (k % kLine == 0) __builtin_prefetch(later + k, 0, 3);
            copy(from + k, p - k, to + k / together);
        }
    }
}

void copy_narrow_rows(const StridedOperand<BFloat16>& a, i64 rows, i64 p, float* to, i64 stride) {
    copy_rows_by<1>(a, rows, p, to, stride, [](const BFloat16* from, i64 rest, float* there) HWY_ATTR {
        hn::StoreU(load_columns<float>(from, rest), Lanes<float>(), there);
    });
}

void copy_pair_rows(const StridedOperand<BFloat16>& a, i64 rows, i64 p, PairOrder order, float* to,
                    i64 stride) {
    with_order(order, [&](auto halves) HWY_ATTR {
        using Halves = decltype(halves);
        copy_rows_by<2>(a, rows, p, to, stride, [](const BFloat16* from, i64 rest, float* there) HWY_ATTR {
            const Lanes<float> d;
            if (rest >= 2 * static_cast<i64>(hn::Lanes(d)))
                return hn::StoreU(Halves::from_memory(hn::LoadU(d, reinterpret_cast<const float*>(from))), d,
                                  there);
            for (i64 k = 0; k < rest; k += 2)
                there[k / 2] = Halves::pair_of(from[k], k + 1 < rest ? from[k + 1] : BFloat16{});
        });
    });
}

template <class Halves>
void pack_pairs_of_columns(const StridedOperand<BFloat16>& b, i64 k, i64 p, i64 columns, BFloat16* pairs,
                           i64 width) {
    const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<float>()));
    for (; k < (p + 1) / 2 * 2; ++k)
        for (i64 j = 0; j < lanes; ++j)
            pairs[k / 2 * 2 * width + 2 * j + (k + Halves::kFirst) % 2] =
                k < p && j < columns ? b.row(k)[j * b.column_stride] : BFloat16{};
}

/// b has consecutive columns: pairs of rows are taken from one end to the other.
template <class Stores, class Halves>
void pack_pairs_of_rows(const StridedOperand<BFloat16>& b, i64 p, i64 columns, BFloat16* pairs, i64 width) {
    const Lanes<float> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    for (i64 k = 0; k + 2 <= p; k += 2, pairs += 2 * width) {
        const BFloat16* const first = b.row(k);
        const BFloat16* const second = b.row(k + 1);
        for (const i64 ahead : {k + kRowsAhead, k + kRowsAhead + 1}) {
            const BFloat16* const later = b.row(std::min(ahead, p - 1));
            __builtin_prefetch(later, 0, 3);
            __builtin_prefetch(later + columns - 1, 0, 3);
        }
        for (i64 column = 0; column < columns; column += lanes)
            Stores::put(Halves::pairs_of(d, load_columns<float>(first + column, columns - column),
                                         load_columns<float>(second + column, columns - column)),
                        reinterpret_cast<float*>(pairs + 2 * column));
    }
}

template <class Stores, class Halves>
void pack_pairs_by(const StridedOperand<BFloat16>& b, i64 p, i64 columns, BFloat16* pairs) {
    const Lanes<float> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    const i64 width = (columns + lanes - 1) / lanes * lanes;
    if (b.column_stride == 1) pack_pairs_of_rows<Stores, Halves>(b, p, columns, pairs, width);
    for (i64 column = 0; column < width; column += lanes) {
        BFloat16* const to = pairs + 2 * column;
        const StridedOperand<BFloat16> from = b.from(0, column);
        const i64 rest = columns - column;
        i64 k = 0;
        if (b.column_stride == 1) {
            k = p / 2 * 2;
        } else if (lanes <= rest) {
            k = transpose_pairs(from, p, [&](i64 row, Vector<float> values) HWY_ATTR {
                Stores::put_apart(Halves::from_memory(values),
                                  reinterpret_cast<float*>(to + 2 * row * width));
            });
        }
        pack_pairs_of_columns<Halves>(from, k, p, rest, to, width);
    }
}

template <class Stores>
void pack_pairs(const StridedOperand<BFloat16>& b, i64 p, i64 columns, PairOrder order, BFloat16* pairs) {
    with_order(order,
               [&](auto halves) HWY_ATTR { pack_pairs_by<Stores, decltype(halves)>(b, p, columns, pairs); });
}

void unpack_pairs(const BFloat16* pairs, i64 p, i64 width, PairOrder order, float* panel) {
    const Lanes<float> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    with_order(order, [&](auto halves) HWY_ATTR {
        for (i64 k = 0; k < p; k += 2, pairs += 2 * width, panel += 2 * width) {
            for (i64 column = 0; column < width; column += lanes) {
                const auto both = hn::LoadU(d, reinterpret_cast<const float*>(pairs + 2 * column));
                hn::StoreU(decltype(halves)::first_of(both), d, panel + column);
                hn::StoreU(decltype(halves)::second_of(both), d, panel + width + column);
            }
        }
    });
}

/// kRowTile pairs of two columns' elements that follow each other; without a second one, of zeros.
HWY_INLINE void pack_pairs_of_tile(const BFloat16* first, const BFloat16* second, float* to) {
    for_tile_vectors([&](auto d, i64 row) HWY_ATTR {
        const auto above = second ? cpu::HWY_NAMESPACE::load(d, second + row, kRowTile) : hn::Zero(d);
        hn::StoreU(UpperFirst::pairs_of(d, cpu::HWY_NAMESPACE::load(d, first + row, kRowTile), above), d,
                   to + row);
    });
}

void pack_pair_rows(const StridedOperand<BFloat16>& a, i64 rows, i64 p, float* tiles) {
    constexpr i64 kTogether = kTileColumnsOfLines<float>;  // pairs
    const i64 pairs = (p + 1) / 2;
    const i64 whole = a.row_stride == 1 ? rows / kRowTile * kRowTile : 0;
    for (i64 pair = 0; pair < pairs; pair += kTogether) {
        const i64 count = std::min(kTogether, pairs - pair);
        const BFloat16* from[2 * kTogether];
        for (i64 j = 0; j < 2 * count; ++j) {
            const i64 column = 2 * pair + j;
            from[j] = column < p ? a.column(column) : nullptr;
            const BFloat16* const later = a.column(std::min(column + 2 * kTogether, p - 1));
            for (i64 line = 0; line < rows; line += 64 / static_cast<i64>(sizeof(BFloat16)))
                __builtin_prefetch(later + line, 0, 3);
        }
        for (i64 row = 0; row < whole; row += kRowTile) {
            float* const to = tiles + row * pairs + pair * kRowTile;
            for (i64 j = 0; j < count; ++j)
                pack_pairs_of_tile(from[2 * j] + row, from[2 * j + 1] ? from[2 * j + 1] + row : nullptr,
                                   to + j * kRowTile);
        }
        for (i64 row = whole; row < rows; ++row) {
            float* const to = tiles + row / kRowTile * kRowTile * pairs + pair * kRowTile + row % kRowTile;
            for (i64 j = 0; j < count; ++j) {
                to[j * kRowTile] =
                    UpperFirst::pair_of(from[2 * j][row * a.row_stride],
                                        from[2 * j + 1] ? from[2 * j + 1][row * a.row_stride] : BFloat16{});
            }
        }
    }
}

template <class T>
NarrowOperandKernels<T> narrow_operand_kernels() {
    return {};
}
template <>
inline NarrowOperandKernels<float> narrow_operand_kernels() {
    return {&pack_narrow_panel,
            &pack_rows<float, BFloat16>,
            &copy_narrow_rows,
            &pack_pairs<IntoCaches>,
            &pack_pairs<PastCaches>,
            &unpack_pairs,
            &copy_pair_rows,
            &pack_pair_rows,
            nullptr,
            nullptr,
            nullptr};
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
