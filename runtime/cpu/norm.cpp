#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/norm.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <cmath>

#include "runtime/cpu/norm.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

// A row of several groups of n columns is treated as that many rows of n.

template <class Stored, class Real = RealOf<Stored>>
void norm_row(const Stored* x, const Stored* weight, Stored* y, Real& inverse_rms, i64 n, double eps) {
    const FullVector<Real> d;
    const Real squares = sum_over_columns(d, n, [&](i64 column, i64 rest, hn::Vec<decltype(d)> sum) HWY_ATTR {
        const auto value = load(d, x + column, rest);
        return hn::MulAdd(value, value, sum);
    });
    inverse_rms =
        static_cast<Real>(1.0 / std::sqrt(static_cast<double>(squares) / static_cast<double>(n) + eps));
    const auto factor = hn::Set(d, inverse_rms);
    for (i64 i = 0; i < n; i += lanes_of(d)) {
        const auto normal = hn::Mul(load(d, x + i, n - i), factor);
        store(d, hn::Mul(normal, load(d, weight + i, n - i)), y + i, n - i);
    }
}

/// dx = w dy s - x s^3 / n <w dy, x>, where s is the inverse of the root mean square.
template <class Stored, class Real = RealOf<Stored>>
void norm_row_grad(const Stored* x, const Stored* weight, const Stored* dy, Real inverse_rms, Stored* dx,
                   i64 n, bool accumulate) {
    const FullVector<Real> d;
    const Real dot = sum_over_columns(d, n, [&](i64 column, i64 rest, hn::Vec<decltype(d)> sum) HWY_ATTR {
        const auto weighted = hn::Mul(load(d, weight + column, rest), load(d, dy + column, rest));
        return hn::MulAdd(weighted, load(d, x + column, rest), sum);
    });
    const auto factor = hn::Set(d, inverse_rms);
    const auto share = hn::Set(d, dot * inverse_rms * inverse_rms * inverse_rms / static_cast<Real>(n));
    for (i64 i = 0; i < n; i += lanes_of(d)) {
        const auto weighted = hn::Mul(load(d, weight + i, n - i), load(d, dy + i, n - i));
        auto value = hn::NegMulAdd(load(d, x + i, n - i), share, hn::Mul(weighted, factor));
        if (accumulate) value = hn::Add(load(d, dx + i, n - i), value);
        store(d, value, dx + i, n - i);
    }
}

template <class Stored, class Real = RealOf<Stored>>
void add_weight_grad(const Stored* x, const Stored* dy, Real inverse_rms, Real* d_weight, i64 count) {
    const FullVector<Real> d;
    const auto factor = hn::Set(d, inverse_rms);
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        const auto normal = hn::Mul(load(d, x + i, count - i), factor);
        const auto sum = load(d, d_weight + i, count - i);
        store(d, hn::MulAdd(load(d, dy + i, count - i), normal, sum), d_weight + i, count - i);
    }
}

void norm_target(const RmsNorm& operation, Range rows) {
    for_stored(operation.x.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const i64 n = operation.weight.elements(), groups = operation.inverse_rms.cols();
        for (i64 row = rows.first * groups; row < rows.last * groups; ++row) {
            norm_row(operation.x.as<Stored>() + row * n, operation.weight.as<Stored>(),
                     operation.y.as<Stored>() + row * n, operation.inverse_rms.as<RealOf<Stored>>()[row], n,
                     operation.eps);
        }
    });
}

void norm_grad_weight_target(const RmsNormGrad& operation, Range columns) {
    for_stored(operation.x.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const i64 n = operation.weight.elements(), rows = operation.inverse_rms.elements();
        for (i64 row = 0; row < rows; ++row) {
            const i64 at = row * n + columns.first;
            add_weight_grad(operation.x.as<Stored>() + at, operation.dy.as<Stored>() + at,
                            operation.inverse_rms.as<RealOf<Stored>>()[row],
                            operation.d_weight.as<RealOf<Stored>>() + columns.first,
                            columns.last - columns.first);
        }
    });
}

void norm_grad_x_target(const RmsNormGrad& operation, Range rows) {
    for_stored(operation.x.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const i64 n = operation.weight.elements(), groups = operation.inverse_rms.cols();
        for (i64 row = rows.first * groups; row < rows.last * groups; ++row) {
            norm_row_grad(operation.x.as<Stored>() + row * n, operation.weight.as<Stored>(),
                          operation.dy.as<Stored>() + row * n,
                          operation.inverse_rms.as<RealOf<Stored>>()[row],
                          operation.dx.as<Stored>() + row * n, n, operation.accumulate_dx);
        }
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(norm_target);
HWY_EXPORT(norm_grad_weight_target);
HWY_EXPORT(norm_grad_x_target);

void rms_norm(const RmsNorm& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(norm_target)(operation, rows);
}
void rms_norm_grad_weight(const RmsNormGrad& operation, Range columns) {
    HWY_DYNAMIC_DISPATCH(norm_grad_weight_target)(operation, columns);
}
void rms_norm_grad_x(const RmsNormGrad& operation, Range rows) {
    HWY_DYNAMIC_DISPATCH(norm_grad_x_target)(operation, rows);
}

}  // namespace moesaic::cpu
#endif
