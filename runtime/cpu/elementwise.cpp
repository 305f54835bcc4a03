#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/elementwise.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <cstring>

#include "runtime/cpu/elementwise.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

template <class Real>
void add_reals(const Real* x, Real* y, i64 count) {
    const FullVector<Real> d;
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        store(d, hn::Add(load(d, y + i, count - i), load(d, x + i, count - i)), y + i, count - i);
    }
}

template <class Real>
void scale_reals(Real factor, Real* y, i64 count) {
    const FullVector<Real> d;
    const auto factors = hn::Set(d, factor);
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        store(d, hn::Mul(load(d, y + i, count - i), factors), y + i, count - i);
    }
}

template <class Real>
void clamp_reals(Real limit, Real* y, i64 count) {
    const FullVector<Real> d;
    const auto upper = hn::Set(d, limit), lower = hn::Set(d, -limit);
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        const auto value = load(d, y + i, count - i);
        // Comparisons are false for NaN, so that it passes; a minimum of instructions would swallow it.
        const auto capped = hn::IfThenElse(hn::Gt(value, upper), upper, value);
        store(d, hn::IfThenElse(hn::Lt(value, lower), lower, capped), y + i, count - i);
    }
}

template <class Real>
void clamp_grad_reals(Real limit, const Real* y, Real* dy, i64 count) {
    const FullVector<Real> d;
    const auto limits = hn::Set(d, limit);
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        const auto outside = hn::Ge(hn::Abs(load(d, y + i, count - i)), limits);
        store(d, hn::IfThenZeroElse(outside, load(d, dy + i, count - i)), dy + i, count - i);
    }
}

void add_target(ConstTensorView x, TensorView y) {
    for_real(y.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        add_reals(x.as<Real>(), y.as<Real>(), y.elements());
    });
}
void scale_target(double factor, TensorView y) {
    for_real(y.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        scale_reals(static_cast<Real>(factor), y.as<Real>(), y.elements());
    });
}
void clamp_target(double limit, TensorView y) {
    for_real(y.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        clamp_reals(static_cast<Real>(limit), y.as<Real>(), y.elements());
    });
}
void clamp_grad_target(double limit, ConstTensorView y, TensorView dy) {
    for_real(y.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        clamp_grad_reals(static_cast<Real>(limit), y.as<Real>(), dy.as<Real>(), y.elements());
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

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

void fold(TensorView part, TensorView sum, Range elements) {
    const i64 count = elements.last - elements.first;
    double* const sums = sum.as<double>() + elements.first;
    if (part.dtype == DType::f64) {
        fold_reals(part.as<double>() + elements.first, sums, count);
    } else {
        fold_reals(part.as<float>() + elements.first, sums, count);
    }
}

template <class Real>
void round_reals(const double* from, Real* to, i64 count) {
    for (i64 i = 0; i < count; ++i) to[i] = static_cast<Real>(from[i]);
}

void round(ConstTensorView from, TensorView to, Range elements) {
    const i64 count = elements.last - elements.first;
    const double* const values = from.as<double>() + elements.first;
    if (to.dtype == DType::f64) {
        round_reals(values, to.as<double>() + elements.first, count);
    } else {
        round_reals(values, to.as<float>() + elements.first, count);
    }
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
