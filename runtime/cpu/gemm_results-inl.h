// Where the results of a block of a product go, compiled once per target: to c, rounded, or onto sums in f64.
#if defined(MOESAIC_RUNTIME_CPU_GEMM_RESULTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOESAIC_RUNTIME_CPU_GEMM_RESULTS_INL_H_
#undef MOESAIC_RUNTIME_CPU_GEMM_RESULTS_INL_H_
#else
#define MOESAIC_RUNTIME_CPU_GEMM_RESULTS_INL_H_
#endif

#include "runtime/cpu/gemm_packing-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {

template <class T>
HWY_INLINE void store_columns(Vector<T> value, T* to, i64 columns) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    if (columns >= lanes) return hn::StoreU(value, d, to);
    if constexpr (!kMasksMemory) return cpu::HWY_NAMESPACE::store(d, value, to, columns);
    if (columns > 0) hn::BlendedStore(value, hn::FirstN(d, static_cast<std::size_t>(columns)), d, to);
}

/// Puts a vector of results where their f64 sum stands. From zero they are added to it all the same: -0
/// becomes 0.
template <SumStart kStart, class V>
HWY_INLINE void put_sum(V value, double* sum, i64 columns) {
    const Lanes<double> d;
    if constexpr (kStart == SumStart::added) {
        store_columns<double>(hn::Add(load_columns<double>(sum, columns), value), sum, columns);
    } else if (kStart == SumStart::streamed && columns >= static_cast<i64>(hn::Lanes(d)) &&
               reinterpret_cast<std::uintptr_t>(sum) % (hn::Lanes(d) * sizeof(double)) == 0) {
        hn::Stream(hn::Add(hn::Zero(d), value), d, sum);
    } else {
        store_columns<double>(hn::Add(hn::Zero(d), value), sum, columns);
    }
}

template <SumStart kStart, class T>
HWY_INLINE void add_to_sum(Vector<T> value, double* sum, i64 columns) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    if constexpr (sizeof(T) == 8) {
        put_sum<kStart>(value, sum, columns);
    } else if constexpr (hn::MaxLanes(Lanes<T>()) == 1) {
        if (columns > 0)
            *sum = (kStart == SumStart::added ? *sum : 0) + static_cast<double>(hn::GetLane(value));
    } else {
        const hn::Half<Lanes<T>> half;
        put_sum<kStart>(hn::PromoteTo(Lanes<double>(), hn::LowerHalf(half, value)), sum, columns);
        put_sum<kStart>(hn::PromoteTo(Lanes<double>(), UpperHalf(half, value)), sum + lanes / 2,
                        columns - lanes / 2);
    }
}

template <SumStart kStart, class T>
void add_tile_to_sum(const PanelProduct<T>& product, const T* values, i64 rows, i64 width) {
    const Lanes<T> d;
    for (i64 row = 0; row < rows; ++row, values += width) {
        for (i64 column = 0; column < product.columns; column += static_cast<i64>(hn::Lanes(d)))
            add_to_sum<kStart, T>(hn::Load(d, values + column),
                                  product.sum + row * product.sum_row_stride + column,
                                  product.columns - column);
    }
}

/// Puts a tile's results, rows `width` apart, where the product wants them.
template <class Rounding = cpu::HWY_NAMESPACE::PlainRounding, class T>
HWY_NOINLINE void put_tile(const PanelProduct<T>& product, const T* values, i64 rows, i64 width) {
    const Lanes<T> d;
    if (product.sum) {
        if (product.sum_start == SumStart::added)
            return add_tile_to_sum<SumStart::added>(product, values, rows, width);
        if (product.sum_start == SumStart::zero)
            return add_tile_to_sum<SumStart::zero>(product, values, rows, width);
        return add_tile_to_sum<SumStart::streamed>(product, values, rows, width);
    }
    for (i64 row = 0; row < rows; ++row, values += width) {
        for (i64 column = 0; column < product.columns; column += static_cast<i64>(hn::Lanes(d))) {
            const Vector<T> value = hn::Load(d, values + column);
            const i64 rest = product.columns - column;
            if constexpr (sizeof(T) == sizeof(float)) {
                if (product.rounded) {
                    const hn::Rebind<std::uint16_t, decltype(d)> halves;
                    BFloat16* const to = product.rounded + row * product.rounded_row_stride + column;
                    cpu::HWY_NAMESPACE::store(halves, Rounding::round(d, value), &to->bits, rest);
                    continue;
                }
            }
            store_columns(value, product.c + row * product.c_row_stride + column, rest);
        }
    }
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
