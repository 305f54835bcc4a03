// How bf16 operands of a product are packed, compiled once per target: widened into panels and tiles, or kept
// as pairs.
#if defined(MOESAIC_RUNTIME_CPU_GEMM_NARROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOESAIC_RUNTIME_CPU_GEMM_NARROW_INL_H_
#undef MOESAIC_RUNTIME_CPU_GEMM_NARROW_INL_H_
#else
#define MOESAIC_RUNTIME_CPU_GEMM_NARROW_INL_H_
#endif

#include "runtime/cpu/gemm_packing-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {

// Two bf16 of consecutive k are one 32-bit lane, as an f32 whose value means nothing: the first k below.
using Pairs = hn::RebindToUnsigned<Lanes<float>>;

HWY_INLINE Vector<float> first_of_pairs(Vector<float> pairs) {
    return hn::BitCast(Lanes<float>(), hn::ShiftLeft<16>(hn::BitCast(Pairs(), pairs)));
}
HWY_INLINE Vector<float> second_of_pairs(Vector<float> pairs) {
    return hn::BitCast(Lanes<float>(), hn::And(hn::BitCast(Pairs(), pairs), hn::Set(Pairs(), 0xffff0000u)));
}
HWY_INLINE Vector<float> pairs_of(Vector<float> first, Vector<float> second) {
    const auto below = hn::ShiftRight<16>(hn::BitCast(Pairs(), first));
    return hn::BitCast(Lanes<float>(), hn::Or(below, hn::BitCast(Pairs(), second)));
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
    pack_panel_by(b, p, columns, panel,
                  [&](const StridedOperand<BFloat16>& from, float* to, i64 width) HWY_ATTR {
                      return transpose_pairs(from, p, [&](i64 row, Vector<float> pairs) HWY_ATTR {
                          hn::StoreU(first_of_pairs(pairs), d, to + 2 * row * width);
                          hn::StoreU(second_of_pairs(pairs), d, to + (2 * row + 1) * width);
                      });
                  });
}

void copy_narrow_rows(const StridedOperand<BFloat16>& a, i64 rows, i64 p, float* to, i64 stride) {
    const Lanes<float> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    constexpr i64 kLine = 64 / sizeof(BFloat16);
    for (i64 row = 0; row < rows; ++row, to += stride) {
        const BFloat16* const from = a.row(row);
        const BFloat16* const later = a.row(std::min(row + 1, rows - 1));
        for (i64 k = 0; k < p; k += lanes) {
            if (k % kLine == 0) __builtin_prefetch(later + k, 0, 3);
            hn::StoreU(load_columns<float>(from + k, p - k), d, to + k);
        }
    }
}

void pack_pairs_of_columns(const StridedOperand<BFloat16>& b, i64 k, i64 p, i64 columns, BFloat16* pairs,
                           i64 width) {
    const i64 lanes = static_cast<i64>(hn::Lanes(Lanes<float>()));
    for (; k < (p + 1) / 2 * 2; ++k)
        for (i64 j = 0; j < lanes; ++j)
            pairs[k / 2 * 2 * width + 2 * j + k % 2] =
                k < p && j < columns ? b.row(k)[j * b.column_stride] : BFloat16{};
}

/// b has consecutive columns: pairs of rows are taken from one end to the other.
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
            hn::StoreU(pairs_of(load_columns<float>(first + column, columns - column),
                                load_columns<float>(second + column, columns - column)),
                       d, reinterpret_cast<float*>(pairs + 2 * column));
    }
}

void pack_pairs(const StridedOperand<BFloat16>& b, i64 p, i64 columns, BFloat16* pairs) {
    const Lanes<float> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    const i64 width = (columns + lanes - 1) / lanes * lanes;
    if (b.column_stride == 1) pack_pairs_of_rows(b, p, columns, pairs, width);
    for (i64 column = 0; column < width; column += lanes) {
        BFloat16* const to = pairs + 2 * column;
        const StridedOperand<BFloat16> from = b.from(0, column);
        const i64 rest = columns - column;
        i64 k = 0;
        if (b.column_stride == 1) {
            k = p / 2 * 2;
        } else if (lanes <= rest) {
            k = transpose_pairs(from, p, [&](i64 row, Vector<float> values) HWY_ATTR {
                hn::StoreU(values, d, reinterpret_cast<float*>(to + 2 * row * width));
            });
        }
        pack_pairs_of_columns(from, k, p, rest, to, width);
    }
}

void unpack_pairs(const BFloat16* pairs, i64 p, i64 width, float* panel) {
    const Lanes<float> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    for (i64 k = 0; k < p; k += 2, pairs += 2 * width, panel += 2 * width) {
        for (i64 column = 0; column < width; column += lanes) {
            const auto both = hn::LoadU(d, reinterpret_cast<const float*>(pairs + 2 * column));
            hn::StoreU(first_of_pairs(both), d, panel + column);
            hn::StoreU(second_of_pairs(both), d, panel + width + column);
        }
    }
}

template <class T>
NarrowOperandKernels<T> narrow_operand_kernels() {
    return {};
}
template <>
inline NarrowOperandKernels<float> narrow_operand_kernels() {
    return {&pack_narrow_panel, &pack_rows<float, BFloat16>, &copy_narrow_rows, &pack_pairs, &unpack_pairs};
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
