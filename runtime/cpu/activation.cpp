#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/activation.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <array>

#include "runtime/bfloat16.h"

#include "runtime/cpu/activation.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

/// Chebyshev coefficients of Phi(-r) e^{r²/2}, Phi the normal distribution function, in (r - 4) / (r + 4) for
/// r >= 0: computed with mpmath from erfc at 40 digits. What is left out adds up to 5e-17; all but the first
/// 11 to 4e-9.
constexpr std::array kNormalTail = {
    0.168288201623232726,     -0.229157099905409074,    0.0777883550906574178,   -0.0203846864182741054,
    0.0039181370454580748,    -0.000466660628337917095, 6.28752013213933893e-6,  8.58398579912788035e-6,
    -1.01675761086361934e-6,  -1.39752675952132098e-7,  3.66928079148698e-8,     2.80417889249353114e-9,
    -1.25842241322101672e-9,  -8.95022240716042097e-11, 4.53608653106984209e-11, 4.47428765715843502e-12,
    -1.67168790478418829e-12, -2.68378146832826028e-13, 5.72176031671438873e-14, 1.62104822394637598e-14,
    -1.37449476010523196e-15, -9.10144761192231472e-16, -2.27358797070792436e-17};
template <class Real>
constexpr int kNormalTailTerms = sizeof(Real) == 4 ? 11 : 23;
constexpr double kInverseRootTwoPi = 0.398942280401432678;

/// Phi(x) and e^{-x²/2}. The tail is computed without cancellation, so that small values keep their digits.
template <class D>
struct Normal {
    hn::Vec<D> distribution, power;

    HWY_INLINE Normal(D d, hn::Vec<D> x) {
        using Real = Lane<D>;
        const auto one = hn::Set(d, Real{1}), four = hn::Set(d, Real{4});
        power = exponential(d, hn::Mul(hn::Set(d, Real{-0.5}), hn::Mul(x, x)));
        const auto radius = hn::Min(hn::Abs(x), hn::Set(d, Real{1000}));  // beyond it the power is 0
        const auto u = hn::Div(hn::Sub(radius, four), hn::Add(radius, four));
        const auto twice = hn::Add(u, u);
        auto after = hn::Zero(d), sum = hn::Zero(d);  // Clenshaw's recurrence
        for (int term = kNormalTailTerms<Real> - 1; term > 0; --term) {
            const auto coefficient =
                hn::Set(d, static_cast<Real>(kNormalTail[static_cast<std::size_t>(term)]));
            const auto next = hn::MulAdd(twice, sum, hn::Sub(coefficient, after));
            after = sum;
            sum = next;
        }
        const auto scaled = hn::MulAdd(u, sum, hn::Sub(hn::Set(d, static_cast<Real>(kNormalTail[0])), after));
        const auto tail = hn::Mul(power, scaled);
        distribution = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), tail, hn::Sub(one, tail));
    }
};

// A kind has value(d, gate, up) and grad(d, gate, up, dy); up and the second gradient mean nothing to kinds
// that are not gated.
template <class D>
struct Gradients {
    hn::Vec<D> gate, up;
};

struct SwiGlu {
    static constexpr bool kGated = true;
    template <class D, class V = hn::Vec<D>>
    HWY_INLINE V value(D d, V gate, V up) const {
        return hn::Mul(hn::Mul(gate, sigmoid(d, gate)), up);
    }
    /// dy up s (1 + g (1 - s)) and dy g s, where s = sigmoid(g).
    template <class D, class V = hn::Vec<D>>
    HWY_INLINE Gradients<D> grad(D d, V gate, V up, V dy) const {
        const auto one = hn::Set(d, Lane<D>{1});
        const auto s = sigmoid(d, gate);
        const auto slope = hn::Mul(s, hn::MulAdd(gate, hn::Sub(one, s), one));
        return {hn::Mul(hn::Mul(dy, up), slope), hn::Mul(dy, hn::Mul(gate, s))};
    }
};

struct Gelu {
    static constexpr bool kGated = false;
    template <class D, class V = hn::Vec<D>>
    HWY_INLINE V value(D d, V x, V /*up*/) const {
        return hn::Mul(x, Normal<D>(d, x).distribution);
    }
    /// dy (Phi(x) + x phi(x)), phi the normal density.
    template <class D, class V = hn::Vec<D>>
    HWY_INLINE Gradients<D> grad(D d, V x, V /*up*/, V dy) const {
        const Normal<D> normal(d, x);
        const auto density = hn::Mul(normal.power, hn::Set(d, static_cast<Lane<D>>(kInverseRootTwoPi)));
        return {hn::Mul(dy, hn::MulAdd(x, density, normal.distribution)), dy};
    }
};

struct Relu {
    static constexpr bool kGated = false;
    template <class D, class V = hn::Vec<D>>
    HWY_INLINE V value(D d, V x, V /*up*/) const {
        return hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), x);  // NaN passes, as in PyTorch
    }
    template <class D, class V = hn::Vec<D>>
    HWY_INLINE Gradients<D> grad(D d, V x, V /*up*/, V dy) const {
        return {hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), dy), dy};
    }
};

struct PRelu {
    static constexpr bool kGated = false;
    double slope;
    template <class D, class V = hn::Vec<D>>
    HWY_INLINE V value(D d, V x, V /*up*/) const {
        return hn::IfThenElse(hn::Gt(x, hn::Zero(d)), x, hn::Mul(hn::Set(d, static_cast<Lane<D>>(slope)), x));
    }
    template <class D, class V = hn::Vec<D>>
    HWY_INLINE Gradients<D> grad(D d, V x, V /*up*/, V dy) const {
        const auto below = hn::Mul(hn::Set(d, static_cast<Lane<D>>(slope)), dy);
        return {hn::IfThenElse(hn::Gt(x, hn::Zero(d)), dy, below), dy};
    }
};

/// Calls work(kind) with the kind's functions.
template <class Work>
HWY_INLINE void for_kind(const ActivationBlock& block, Work&& work) {
    switch (block.kind) {
        case ActivationKind::swiglu:
            return work(SwiGlu{});
        case ActivationKind::gelu:
            return work(Gelu{});
        case ActivationKind::relu:
            return work(Relu{});
        case ActivationKind::prelu:
            return work(PRelu{block.slope});
    }
}

/// A row that will be worked on soon: rows of a block are far apart, which no hardware foresees.
template <class Stored, int kWrite>
HWY_INLINE void fetch_row(const Stored* row, i64 columns) {
    constexpr i64 kLine = 64;
    const char* const first = reinterpret_cast<const char*>(row);
    for (i64 byte = 0; byte < columns * static_cast<i64>(sizeof(Stored)); byte += kLine)
        __builtin_prefetch(first + byte, kWrite, 3);
}

template <class Kind, class Stored>
void value_of_row(const Kind& kind, const Stored* gate, const Stored* up, Stored* y, i64 columns) {
    const FullVector<RealOf<Stored>> d;
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        const auto g = load(d, gate + i, columns - i);
        const auto u = Kind::kGated ? load(d, up + i, columns - i) : g;
        store(d, kind.value(d, g, u), y + i, columns - i);
    }
}

template <class Kind, class Stored>
void grad_of_row(const Kind& kind, const Stored* gate, i64 half, const Stored* dy, Stored* d_gate,
                 i64 columns) {
    const FullVector<RealOf<Stored>> d;
    for (i64 i = 0; i < columns; i += lanes_of(d)) {
        const i64 rest = columns - i;
        const auto g = load(d, gate + i, rest);
        const auto u = Kind::kGated ? load(d, gate + half + i, rest) : g;
        const auto gradients = kind.grad(d, g, u, load(d, dy + i, rest));
        store(d, gradients.gate, d_gate + i, rest);
        if (Kind::kGated) store(d, gradients.up, d_gate + half + i, rest);
    }
}

void activate_target(const ActivationBlock& block, const void* x, void* y) {
    for_stored(block.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        for_kind(block, [&](const auto& kind) HWY_ATTR {
            for (i64 row = 0; row < block.rows; ++row) {
                const Stored* const gate = static_cast<const Stored*>(x) + row * block.x_row_stride;
                Stored* const result = static_cast<Stored*>(y) + row * block.y_row_stride;
                fetch_row<Stored, 1>(result + block.y_row_stride, block.columns);
                value_of_row(kind, gate, gate + block.half, result, block.columns);
            }
        });
    });
}

void activate_backward_target(const ActivationBlock& block, const void* x, const void* dy, void* dx) {
    for_stored(block.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        for_kind(block, [&](const auto& kind) HWY_ATTR {
            for (i64 row = 0; row < block.rows; ++row) {
                const Stored* const gate = static_cast<const Stored*>(x) + row * block.x_row_stride;
                Stored* const d_gate = static_cast<Stored*>(dx) + row * block.x_row_stride;
                for (i64 half = 0; half < activation_halves(block.kind); ++half) {
                    const i64 ahead = block.x_row_stride + half * block.half;
                    fetch_row<Stored, 0>(gate + ahead, block.columns);
                    fetch_row<Stored, 1>(d_gate + ahead, block.columns);
                }
                grad_of_row(kind, gate, block.half, static_cast<const Stored*>(dy) + row * block.y_row_stride,
                            d_gate, block.columns);
            }
        });
    });
}

/// sum of dy * min(x, 0) over a row.
double slope_grad_target(ConstTensorView x, ConstTensorView dy, i64 row) {
    double sum = 0;
    for_stored(x.dtype, [&](auto stored) HWY_ATTR {
        using Stored = decltype(stored);
        const FullVector<RealOf<Stored>> d;
        const Stored* const values = x.as<Stored>() + row * x.cols();
        const Stored* const gradients = dy.as<Stored>() + row * x.cols();
        sum = static_cast<double>(
            sum_over_columns(d, x.cols(), [&](i64 column, i64 rest, auto running) HWY_ATTR {
                const auto value = load(d, values + column, rest);
                const auto below = hn::IfThenZeroElse(hn::Gt(value, hn::Zero(d)), value);
                return hn::MulAdd(load(d, gradients + column, rest), below, running);
            }));
    });
    return sum;
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(activate_target);
HWY_EXPORT(activate_backward_target);
HWY_EXPORT(slope_grad_target);

namespace {

/// Calls visit(group, first row, rows) for the parts of `rows` that lie in one group each; all of them are
/// one part where there are no groups.
template <class Visit>
void for_each_group(std::span<const i64> rows_per_group, Range rows, Visit visit) {
    if (rows_per_group.empty()) return visit(i64{0}, rows.first, rows.last - rows.first);
    i64 begin = 0;
    for (std::size_t group = 0; group < rows_per_group.size(); ++group) {
        const i64 end = begin + rows_per_group[group];
        const i64 first = std::max(begin, rows.first), last = std::min(end, rows.last);
        if (first < last) visit(static_cast<i64>(group), first, last - first);
        begin = end;
    }
}

template <class View>
auto row_of(const View& view, i64 row) {
    return view.slice_rows(row, 1).data;
}

}  // namespace

double slope_of(ConstTensorView slope, i64 group) {
    if (!slope.data) return 0;
    if (slope.dtype == DType::f64) return slope.as<double>()[group];
    if (slope.dtype == DType::bf16) return static_cast<double>(widened(slope.as<BFloat16>()[group]));
    return static_cast<double>(slope.as<float>()[group]);
}

void activate(const ActivationBlock& block, const void* x, void* y) {
    HWY_DYNAMIC_DISPATCH(activate_target)(block, x, y);
}
void activate_backward(const ActivationBlock& block, const void* x, const void* dy, void* dx) {
    HWY_DYNAMIC_DISPATCH(activate_backward_target)(block, x, dy, dx);
}

void activation(const Activation& operation, std::span<const i64> rows_per_group, Range rows) {
    const i64 width = operation.y.cols();
    for_each_group(rows_per_group, rows, [&](i64 group, i64 first, i64 count) {
        activate({operation.kind, operation.x.dtype, count, width, operation.x.cols(), width, width,
                  slope_of(operation.slope, group)},
                 row_of(operation.x, first), row_of(operation.y, first));
    });
}

void activation_grad(const ActivationGrad& operation, std::span<const i64> rows_per_group, Range rows) {
    const i64 width = operation.dy.cols();
    for_each_group(rows_per_group, rows, [&](i64 group, i64 first, i64 count) {
        activate_backward({operation.kind, operation.x.dtype, count, width, operation.x.cols(), width, width,
                           slope_of(operation.slope, group)},
                          row_of(operation.x, first), row_of(operation.dy, first),
                          row_of(operation.dx, first));
    });
}

void slope_grad(const ActivationGrad& operation, std::span<const i64> rows_per_group, Range groups) {
    const auto kernel = HWY_DYNAMIC_DISPATCH(slope_grad_target);
    for_each_group(rows_per_group, {0, operation.x.rows()}, [&](i64 group, i64 first, i64 count) {
        if (group < groups.first || group >= groups.last) return;
        double& sum = operation.d_slope.as<double>()[group];
        for (i64 row = first; row < first + count; ++row) sum += kernel(operation.x, operation.dy, row);
    });
}

}  // namespace moesaic::cpu
#endif
