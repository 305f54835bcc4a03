// Where the results of a block of a product go, compiled once per target: to c, rounded, or onto sums.
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

/// Puts a vector of results where their sum stands. From zero they are added to it all the same: -0 becomes
/// 0.
template <SumStart kStart, class Sum>
HWY_INLINE void put_sum(Vector<Sum> value, Sum* sum, i64 columns) {
    const Lanes<Sum> d;
    if constexpr (kStart == SumStart::added) {
        store_columns<Sum>(hn::Add(load_columns<Sum>(sum, columns), value), sum, columns);
    } else if (kStart == SumStart::streamed && columns >= static_cast<i64>(hn::Lanes(d)) &&
               reinterpret_cast<std::uintptr_t>(sum) % (hn::Lanes(d) * sizeof(Sum)) == 0) {
        hn::Stream(hn::Add(hn::Zero(d), value), d, sum);
    } else {
        store_columns<Sum>(hn::Add(hn::Zero(d), value), sum, columns);
    }
}

template <SumStart kStart, class T, class Sum>
HWY_INLINE void add_to_sum(Vector<T> value, Sum* sum, i64 columns) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    if constexpr (std::is_same_v<T, Sum>) {
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

template <SumStart kStart, class T, class Sum>
void add_tile_to_sum(const PanelProduct<T>& product, Sum* sum, const T* values, i64 rows, i64 width) {
    const Lanes<T> d;
    for (i64 row = 0; row < rows; ++row, values += width, sum += product.sum_row_stride) {
        for (i64 column = 0; column < product.columns; column += static_cast<i64>(hn::Lanes(d)))
            add_to_sum<kStart, T>(hn::Load(d, values + column), sum + column, product.columns - column);
    }
}
template <class T, class Sum>
void add_tile_to_sum(const PanelProduct<T>& product, Sum* sum, const T* values, i64 rows, i64 width) {
    if (product.sum_start == SumStart::added)
        return add_tile_to_sum<SumStart::added>(product, sum, values, rows, width);
    if (product.sum_start == SumStart::zero)
        return add_tile_to_sum<SumStart::zero>(product, sum, values, rows, width);
    add_tile_to_sum<SumStart::streamed>(product, sum, values, rows, width);
}

/// A row, two vectors at a time, where an instruction rounds both.
/// Returns the first column that is left.
template <class Rounding, class T>
HWY_INLINE i64 round_pairs_of_vectors(const T* values, i64 columns, BFloat16* to) {
    const Lanes<T> d;
    i64 column = 0;
    if constexpr (requires { Rounding::round_both(d, hn::Zero(d), hn::Zero(d)); }) {
        const hn::Repartition<std::uint16_t, decltype(d)> halves;
        const i64 lanes = static_cast<i64>(hn::Lanes(d));
        for (; column + 2 * lanes <= columns; column += 2 * lanes)
            hn::StoreU(
                Rounding::round_both(d, hn::Load(d, values + column), hn::Load(d, values + column + lanes)),
                halves, &to[column].bits);
    }
    return column;
}

/// Rounds a tile's results, rows `width` apart.
template <class Rounding>
void round_tile(const PanelProduct<float>& product, const float* values, i64 rows, i64 width) {
    const Lanes<float> d;
    const hn::Rebind<std::uint16_t, decltype(d)> halves;
    BFloat16* to = product.rounded;
    for (i64 row = 0; row < rows; ++row, values += width, to += product.rounded_row_stride) {
        i64 column = round_pairs_of_vectors<Rounding>(values, product.columns, to);
        for (; column < product.columns; column += static_cast<i64>(hn::Lanes(d)))
            cpu::HWY_NAMESPACE::store(halves, Rounding::round(d, hn::Load(d, values + column)),
                                      &to[column].bits, product.columns - column);
    }
}

/// Puts a tile's results, rows `width` apart, where the product wants them.
template <class Rounding = cpu::HWY_NAMESPACE::PlainRounding, class T>
HWY_NOINLINE void put_tile(const PanelProduct<T>& product, const T* values, i64 rows, i64 width) {
    const Lanes<T> d;
    if (product.sum.wide) return add_tile_to_sum(product, product.sum.wide, values, rows, width);
    if (product.sum.real) return add_tile_to_sum(product, product.sum.real, values, rows, width);
    if constexpr (sizeof(T) == sizeof(float)) {
        if (product.rounded) return round_tile<Rounding>(product, values, rows, width);
    }
    for (i64 row = 0; row < rows; ++row, values += width)
        for (i64 column = 0; column < product.columns; column += static_cast<i64>(hn::Lanes(d)))
            store_columns(hn::Load(d, values + column), product.c + row * product.c_row_stride + column,
                          product.columns - column);
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
