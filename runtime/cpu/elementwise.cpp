#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/elementwise.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <hwy/cache_control.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/base/host_memory.h"
#include "runtime/bfloat16.h"
#include "runtime/cpu/elementwise.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

template <class Stored>
void add_reals(const Stored* x, Stored* y, i64 count) {
    const FullVector<RealOf<Stored>> d;
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        store(d, hn::Add(load(d, y + i, count - i), load(d, x + i, count - i)), y + i, count - i);
    }
}

template <class Stored>
void scale_reals(RealOf<Stored> factor, Stored* y, i64 count) {
    const FullVector<RealOf<Stored>> d;
    const auto factors = hn::Set(d, factor);
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        store(d, hn::Mul(load(d, y + i, count - i), factors), y + i, count - i);
    }
}

template <class Stored>
void clamp_reals(RealOf<Stored> limit, Stored* y, i64 count) {
    const FullVector<RealOf<Stored>> d;
    const auto upper = hn::Set(d, limit), lower = hn::Set(d, -limit);
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        const auto value = load(d, y + i, count - i);
        // Comparisons are false for NaN, so that it passes; a minimum of instructions would swallow it.
        const auto capped = hn::IfThenElse(hn::Gt(value, upper), upper, value);
        store(d, hn::IfThenElse(hn::Lt(value, lower), lower, capped), y + i, count - i);
    }
}

template <class Stored>
void clamp_grad_reals(RealOf<Stored> limit, const Stored* y, Stored* dy, i64 count) {
    const FullVector<RealOf<Stored>> d;
    const auto limits = hn::Set(d, limit);
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        const auto outside = hn::Ge(hn::Abs(load(d, y + i, count - i)), limits);
        store(d, hn::IfThenZeroElse(outside, load(d, dy + i, count - i)), dy + i, count - i);
    }
}

template <class From, class To>
void convert_stored(const From* from, To* to, i64 count) {
    const FullVector<float> d;
    for (i64 i = 0; i < count; i += lanes_of(d)) store(d, load(d, from + i, count - i), to + i, count - i);
}

/// Between f32 and bf16, or f32 and f32.
void convert_target(ConstTensorView from, TensorView to) {
    for_narrow(from.dtype, [&](auto source) HWY_ATTR {
        for_narrow(to.dtype, [&](auto target) HWY_ATTR {
            convert_stored(from.as<decltype(source)>(), to.as<decltype(target)>(), to.elements());
        });
    });
}

template <bool kStreamed>
void round_doubles(const double* from, float* to, i64 count) {
    const FullVector<double> wide;
    const hn::Rebind<float, decltype(wide)> d;
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        const i64 rest = count - i;
        put<kStreamed>(d, hn::DemoteTo(d, load(wide, from + i, rest)), to + i, rest);
    }
}

/// `streamed`: past the caches.
void round_doubles_target(const double* from, float* to, i64 count, bool streamed) {
    if constexpr (HWY_MAX_BYTES >= 32) {  // elsewhere Highway keeps what is too large finite
        if (!streamed) return round_doubles<false>(from, to, count);
        const i64 before = elements_before_line(to, count);
        round_doubles<false>(from, to, before);
        round_doubles<true>(from + before, to + before, count - before);
        hwy::FlushStream();  // before other threads may read
    } else {
        for (i64 i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
    }
}

void widen_rows_target(const RowBlock& block, const BFloat16* from, float* to) {
    for (i64 row = 0; row < block.rows; ++row)
        convert_stored(from + row * block.narrow_stride, to + row * block.wide_stride, block.columns);
}
void round_rows_target(const RowBlock& block, const float* from, BFloat16* to) {
    for (i64 row = 0; row < block.rows; ++row)
        convert_stored(from + row * block.wide_stride, to + row * block.narrow_stride, block.columns);
}

void add_target(ConstTensorView x, TensorView y) {
    for_stored(y.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        add_reals(x.as<Stored>(), y.as<Stored>(), y.elements());
    });
}
void scale_target(double factor, TensorView y) {
    for_stored(y.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        scale_reals(static_cast<RealOf<Stored>>(factor), y.as<Stored>(), y.elements());
    });
}
void clamp_target(double limit, TensorView y) {
    for_stored(y.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        clamp_reals(static_cast<RealOf<Stored>>(limit), y.as<Stored>(), y.elements());
    });
}
void clamp_grad_target(double limit, ConstTensorView y, TensorView dy) {
    for_stored(y.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        clamp_grad_reals(static_cast<RealOf<Stored>>(limit), y.as<Stored>(), dy.as<Stored>(), y.elements());
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(convert_target);
HWY_EXPORT(round_doubles_target);
HWY_EXPORT(widen_rows_target);
HWY_EXPORT(round_rows_target);
HWY_EXPORT(add_target);
HWY_EXPORT(scale_target);
HWY_EXPORT(clamp_target);
HWY_EXPORT(clamp_grad_target);

namespace {
template <class View>
View part(const View& view, Range elements) {
    return view.flat(elements.first, elements.last - elements.first);
}
}  // namespace

void copy(ConstTensorView from, TensorView to, Range elements) {
    const ConstTensorView source = part(from, elements);
    if (source.bytes() > 0) {
        std::memmove(part(to, elements).data, source.data, static_cast<std::size_t>(source.bytes()));
    }
}
// Limited by memory, so left to the compiler.
template <class Real>
void fold_reals(Real* part, double* sum, i64 count) {
    for (i64 i = 0; i < count; ++i) {
        sum[i] += static_cast<double>(part[i]);
        part[i] = 0;
    }
}

/// Adding 1.5 * 2^52 steps leaves no room for anything finer than a step.
template <class Real>
void fold_rounded_reals(Real* part, double* sum, i64 count, const FoldRounding& rounding) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const double shift = 0x1.8p52 * rounding.step, limit = rounding.limit;
    for (i64 i = 0; i < count; ++i) {
        const auto value = static_cast<double>(part[i]);
        const double rounded = (value + shift) - shift;
        // Of infinities and NaN the difference is NaN: what is infinite afterwards was too large.
        sum[i] += std::abs(value) <= limit ? rounded : kInfinity + (value - value);
        part[i] = 0;
    }
}

/// -0 becomes 0, as in a sum.
template <class Real>
void fold_in_place(Real* part, i64 count) {
    for (i64 i = 0; i < count; ++i) part[i] = Real(0) + part[i];
}

void fold(TensorView part, TensorView sum, Range elements, const FoldRounding& rounding) {
    const i64 count = elements.last - elements.first;
    if (sum.data == part.data) {
        if (part.dtype == DType::f64) return fold_in_place(part.as<double>() + elements.first, count);
        return fold_in_place(part.as<float>() + elements.first, count);
    }
    double* const sums = sum.as<double>() + elements.first;
    const auto fold_all = [&](auto* parts) {
        if (rounding.step > 0) {
            fold_rounded_reals(parts + elements.first, sums, count, rounding);
        } else {
            fold_reals(parts + elements.first, sums, count);
        }
    };
    if (part.dtype == DType::f64) {
        fold_all(part.as<double>());
    } else {
        fold_all(part.as<float>());
    }
}

template <class To>
void convert_doubles(const double* from, To* to, i64 count) {
    for (i64 i = 0; i < count; ++i) {
        if constexpr (std::is_same_v<To, BFloat16>) {
            to[i] = to_bfloat16(from[i]);
        } else {
            to[i] = static_cast<To>(from[i]);
        }
    }
}

void convert_from_doubles(const double* from, TensorView to, bool streamed) {
    if (to.dtype == DType::f64) convert_doubles(from, to.as<double>(), to.elements());
    if (to.dtype == DType::f32)
        HWY_DYNAMIC_DISPATCH(round_doubles_target)(from, to.as<float>(), to.elements(), streamed);
    if (to.dtype == DType::bf16) convert_doubles(from, to.as<BFloat16>(), to.elements());
}

void convert(ConstTensorView from, TensorView to, Range elements) {
    if (from.dtype == DType::f64) {
        convert_from_doubles(from.as<double>() + elements.first, part(to, elements),
                             from.bytes() + to.bytes() >= kBeyondCaches);
    } else {
        HWY_DYNAMIC_DISPATCH(convert_target)(part(from, elements), part(to, elements));
    }
}

void widen_rows(const RowBlock& block, const BFloat16* from, float* to) {
    HWY_DYNAMIC_DISPATCH(widen_rows_target)(block, from, to);
}
void round_rows(const RowBlock& block, const float* from, BFloat16* to) {
    HWY_DYNAMIC_DISPATCH(round_rows_target)(block, from, to);
}

void zero(TensorView y, Range elements) {
    const TensorView target = part(y, elements);
    if (target.bytes() > 0) std::memset(target.data, 0, static_cast<std::size_t>(target.bytes()));
}
void add(ConstTensorView x, TensorView y, Range elements) {
    HWY_DYNAMIC_DISPATCH(add_target)(part(x, elements), part(y, elements));
}
void scale(double factor, TensorView y, Range elements) {
    HWY_DYNAMIC_DISPATCH(scale_target)(factor, part(y, elements));
}
void clamp(double limit, TensorView y, Range elements) {
    HWY_DYNAMIC_DISPATCH(clamp_target)(limit, part(y, elements));
}
void clamp_grad(double limit, ConstTensorView y, TensorView dy, Range elements) {
    HWY_DYNAMIC_DISPATCH(clamp_grad_target)(limit, part(y, elements), part(dy, elements));
}

}  // namespace moesaic::cpu
#endif
