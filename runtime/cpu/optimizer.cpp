#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/optimizer.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <algorithm>
#include <cmath>

#include "runtime/cpu/optimizer.h"
#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::cpu::HWY_NAMESPACE {
namespace {

/// The factors of one step, which are the same for every element; computed in f64, as PyTorch does.
template <class Real>
struct AdamWFactors {
    explicit AdamWFactors(const AdamW& operation)
        : gradient(static_cast<Real>(operation.grad_scale)),
          decay(static_cast<Real>(1 - operation.lr * operation.weight_decay)),
          beta1(static_cast<Real>(operation.beta1)),
          one_minus_beta1(static_cast<Real>(1 - operation.beta1)),
          beta2(static_cast<Real>(operation.beta2)),
          one_minus_beta2(static_cast<Real>(1 - operation.beta2)),
          eps(static_cast<Real>(operation.eps)) {
        const auto step = static_cast<double>(operation.step);
        step_size = static_cast<Real>(operation.lr / (1 - std::pow(operation.beta1, step)));
        root_correction = static_cast<Real>(std::sqrt(1 - std::pow(operation.beta2, step)));
    }
    Real gradient, decay, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, step_size, root_correction;
};

/// `rounded` is null where nobody wants the parameter in bf16.
template <class Real>
void adamw_elements(const AdamWFactors<Real>& factors, Real* parameter, Real* first_moment,
                    Real* second_moment, const Real* gradient, BFloat16* rounded, i64 count) {
    const FullVector<Real> d;
    const auto decay = hn::Set(d, factors.decay), gradient_scale = hn::Set(d, factors.gradient);
    const auto beta1 = hn::Set(d, factors.beta1), one_minus_beta1 = hn::Set(d, factors.one_minus_beta1);
    const auto beta2 = hn::Set(d, factors.beta2), one_minus_beta2 = hn::Set(d, factors.one_minus_beta2);
    const auto eps = hn::Set(d, factors.eps), step_size = hn::Set(d, factors.step_size);
    const auto root_correction = hn::Set(d, factors.root_correction);
    for (i64 i = 0; i < count; i += lanes_of(d)) {
        const i64 rest = count - i;
        const auto g = hn::Mul(load(d, gradient + i, rest), gradient_scale);
        const auto m = hn::MulAdd(beta1, load(d, first_moment + i, rest), hn::Mul(one_minus_beta1, g));
        const auto v =
            hn::MulAdd(beta2, load(d, second_moment + i, rest), hn::Mul(one_minus_beta2, hn::Mul(g, g)));
        const auto denominator = hn::Add(hn::Div(hn::Sqrt(v), root_correction), eps);
        const auto decayed = hn::Mul(load(d, parameter + i, rest), decay);
        store(d, m, first_moment + i, rest);
        store(d, v, second_moment + i, rest);
        const auto updated = hn::NegMulAdd(step_size, hn::Div(m, denominator), decayed);
        store(d, updated, parameter + i, rest);
        if constexpr (sizeof(Real) == sizeof(float)) {
            if (rounded) store(d, updated, rounded + i, rest);
        }
    }
}

/// Doubles that follow from up to one vector of the type they are read from.
HWY_INLINE hn::Vec<FullVector<double>> load_as_double(const double* from, i64 rest) {
    return load(FullVector<double>(), from, rest);
}
HWY_INLINE hn::Vec<FullVector<double>> load_as_double(const float* from, i64 rest) {
    const FullVector<double> d;
    const hn::Rebind<float, FullVector<double>> narrow;
    return hn::PromoteTo(d, load(narrow, from, rest));
}

template <class Real>
double sum_of_squares(const Real* values, i64 count) {
    const FullVector<double> d;
    return sum_over_columns(d, count, [&](i64 i, i64 rest, hn::Vec<decltype(d)> sum) HWY_ATTR {
        const auto value = load_as_double(values + i, rest);
        return hn::MulAdd(value, value, sum);
    });
}

void adamw_target(const AdamW& operation, Range elements) {
    for_real(operation.parameter.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        adamw_elements(AdamWFactors<Real>(operation), operation.parameter.as<Real>() + elements.first,
                       operation.first_moment.as<Real>() + elements.first,
                       operation.second_moment.as<Real>() + elements.first,
                       operation.gradient.as<Real>() + elements.first,
                       operation.rounded.data ? operation.rounded.as<BFloat16>() + elements.first : nullptr,
                       elements.last - elements.first);
    });
}

void block_sum_squares_target(ConstTensorView values, i64 block, TensorView sums, Range blocks) {
    for_real(values.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        for (i64 index = blocks.first; index < blocks.last; ++index) {
            const i64 first = index * block, count = std::min(block, values.elements() - first);
            sums.as<double>()[index] = sum_of_squares(values.as<Real>() + first, count);
        }
    });
}

}  // namespace
}  // namespace moesaic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic::cpu {

HWY_EXPORT(adamw_target);
HWY_EXPORT(block_sum_squares_target);

void adamw(const AdamW& operation, Range elements) {
    HWY_DYNAMIC_DISPATCH(adamw_target)(operation, elements);
}
void block_sum_squares(ConstTensorView values, i64 block, TensorView sums, Range blocks) {
    HWY_DYNAMIC_DISPATCH(block_sum_squares_target)(values, block, sums, blocks);
}

}  // namespace moesaic::cpu
#endif
