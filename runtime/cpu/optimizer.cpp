#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/optimizer.cpp"
#include "runtime/cpu/simd_targets.h"
// Targets first, then what they share.
#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "runtime/base/host_memory.h"
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
template <bool kStreamed, class Real>
void adamw_elements(const AdamWFactors<Real>& factors, Real* parameter, Real* first_moment,
                    Real* second_moment, const Real* gradient, BFloat16* rounded, i64 count) {
    const FullVector<Real> d;
    const auto decay = hn::Set(d, factors.decay), gradient_scale = hn::Set(d, factors.gradient);
    const auto beta1 = hn::Set(d, factors.beta1), one_minus_beta1 = hn::Set(d, factors.one_minus_beta1);
    const auto beta2 = hn::Set(d, factors.beta2), one_minus_beta2 = hn::Set(d, factors.one_minus_beta2);
    const auto eps = hn::Set(d, factors.eps), step_size = hn::Set(d, factors.step_size);
    const auto root_correction = hn::Set(d, factors.root_correction);
    const auto update = [&](i64 i, i64 rest) HWY_ATTR {
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
        return updated;
    };
    i64 i = 0;
    // Where vectors are whole lines: half a line, between writes elsewhere, may go to memory by itself.
    if constexpr (kStreamed && sizeof(Real) == sizeof(float) && hn::MaxLanes(d) >= 16) {
        const FullVector<std::uint16_t> line;
        for (; i + lanes_of(line) <= count; i += lanes_of(line)) {
            const auto lower = rounded_to_bfloat16(d, update(i, lanes_of(d)));
            const auto upper = rounded_to_bfloat16(d, update(i + lanes_of(d), lanes_of(d)));
            hn::Stream(Combine(line, upper, lower), line, &rounded[i].bits);
        }
    }
    for (; i < count; i += lanes_of(d)) {
        const auto updated = update(i, count - i);
        if constexpr (sizeof(Real) == sizeof(float)) {
            if (rounded) store(d, updated, rounded + i, count - i);
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

constexpr i64 kFetchedAhead = 512;  // a single stream of reads is otherwise slower than memory

template <class Real>
double sum_of_squares(const Real* values, i64 count) {
    const FullVector<double> d;
    return sum_over_columns(d, count, [&](i64 i, i64 rest, hn::Vec<decltype(d)> sum) HWY_ATTR {
        __builtin_prefetch(values + i + kFetchedAhead, 0, 3);
        const auto value = load_as_double(values + i, rest);
        return hn::MulAdd(value, value, sum);
    });
}

constexpr i64 kBytesMoved = 4 * sizeof(float) + sizeof(BFloat16);  // of an element with its bf16

void adamw_target(const AdamW& operation, Range elements) {
    for_real(operation.parameter.dtype, [&](auto real) HWY_ATTR {
        using Real = decltype(real);
        const AdamWFactors<Real> factors(operation);
        BFloat16* const rounded = operation.rounded.data ? operation.rounded.as<BFloat16>() : nullptr;
        const auto update = [&](auto streamed, i64 first, i64 last) HWY_ATTR {
            adamw_elements<decltype(streamed)::value>(
                factors, operation.parameter.as<Real>() + first, operation.first_moment.as<Real>() + first,
                operation.second_moment.as<Real>() + first, operation.gradient.as<Real>() + first,
                rounded ? rounded + first : nullptr, last - first);
        };
        // The rest of the operation drives most of them out of the caches before anybody reads them.
        if (!rounded || operation.parameter.elements() * kBytesMoved < kBeyondCaches)
            return update(std::false_type(), elements.first, elements.last);
        const i64 line =
            elements.first + elements_before_line(rounded + elements.first, elements.last - elements.first);
        update(std::false_type(), elements.first, line);
        update(std::true_type(), line, elements.last);
        hwy::FlushStream();  // before other threads may read
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
