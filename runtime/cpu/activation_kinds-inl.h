// The kinds of activation as functions of vectors, compiled once per target.
#if defined(MOESAIC_RUNTIME_CPU_ACTIVATION_KINDS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef MOESAIC_RUNTIME_CPU_ACTIVATION_KINDS_INL_H_
#undef MOESAIC_RUNTIME_CPU_ACTIVATION_KINDS_INL_H_
#else
#define MOESAIC_RUNTIME_CPU_ACTIVATION_KINDS_INL_H_
#endif

#include <hwy/highway.h>

#include <array>

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

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
