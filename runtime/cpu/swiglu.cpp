#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/swiglu.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include "runtime/cpu/simd-inl.h"
#include "runtime/cpu/swiglu.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

template <class Stored>
void swiglu_row(const Stored* gate, const Stored* up, Stored* y, i64 width) {
    const FullVector<RealOf<Stored>> d;
    for (i64 i = 0; i < width; i += lanes_of(d)) {
        const auto g = load(d, gate + i, width - i);
        const auto silu = hn::Mul(g, sigmoid(d, g));
        store(d, hn::Mul(silu, load(d, up + i, width - i)), y + i, width - i);
    }
}

/// d_gate = dy up s (1 + g (1 - s)) and d_up = dy g s, where s = sigmoid(g).
template <class Stored, class Real = RealOf<Stored>>
void swiglu_row_grad(const Stored* gate, const Stored* up, const Stored* dy, Stored* d_gate, Stored* d_up,
                     i64 width) {
    const FullVector<Real> d;
    const auto one = hn::Set(d, Real{1});
    for (i64 i = 0; i < width; i += lanes_of(d)) {
        const i64 rest = width - i;
        const auto g = load(d, gate + i, rest), gradient = load(d, dy + i, rest);
        const auto s = sigmoid(d, g);
        const auto slope = hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one));
        store(d, hn::Mul(hn::Mul(gradient, load(d, up + i, rest)), slope), d_gate + i, rest);
        store(d, hn::Mul(gradient, hn::Mul(g, s)), d_up + i, rest);
    }
}

void swiglu_target(const SwiGlu& operation, Range rows) {
    for_stored(operation.x.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const i64 width = operation.y.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            const Stored* gate = operation.x.as<Stored>() + row * 2 * width;
            swiglu_row(gate, gate + width, operation.y.as<Stored>() + row * width, width);
        }
    });
}

void swiglu_grad_target(const SwiGluGrad& operation, Range rows) {
    for_stored(operation.x.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const i64 width = operation.dy.cols();
        for (i64 row = rows.first; row < rows.last; ++row) {
            const Stored* gate = operation.x.as<Stored>() + row * 2 * width;
            Stored* d_gate = operation.dx.as<Stored>() + row * 2 * width;
            swiglu_row_grad(gate, gate + width, operation.dy.as<Stored>() + row * width, d_gate,
                            d_gate + width, width);
        }
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(swiglu_target);
HWY_EXPORT(swiglu_grad_target);

void swiglu(const SwiGlu& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(swiglu_target)(operation, rows);
}
void swiglu_grad(const SwiGluGrad& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(swiglu_grad_target)(operation, rows);
}

}  // namespace moesaic::cpu
#endif
