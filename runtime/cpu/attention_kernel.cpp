// Softmax rows with vectors along the keys; the order of every sum depends on the row's length only.
#include "runtime/cpu/attention_kernel.h"

#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/attention_kernel.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>  // includes this file once more per instruction set
#include <hwy/highway.h>

#include <hwy/contrib/math/math-inl.h>

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {  // other files have functions of the same names here
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Lanes = hn::ScalableTag<T>;

/// The lanes of the vector at `index` that lie before `valid`.
template <class T>
HWY_INLINE auto lanes_before(i64 index, i64 valid) {
    return hn::FirstN(Lanes<T>(), static_cast<std::size_t>(valid > index ? valid - index : 0));
}

template <class T>
T exponentiate(T* scores, i64 valid, i64 end, T scale, T* sum) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    const auto lowest = hn::Set(d, std::numeric_limits<T>::lowest());
    const auto factor = hn::Set(d, scale);
    auto largest = lowest;
    i64 i = 0;
    for (; i + lanes <= valid; i += lanes) largest = hn::Max(largest, hn::LoadU(d, scores + i));
    if (i < valid)
        largest =
            hn::Max(largest, hn::IfThenElse(lanes_before<T>(i, valid), hn::LoadU(d, scores + i), lowest));
    const T max = hn::GetLane(hn::MaxOfLanes(d, largest)) * scale;
    const auto shift = hn::Set(d, max);
    auto sums = hn::Zero(d);
    for (i = 0; i + lanes <= valid; i += lanes) {
        const auto e = hn::Exp(d, hn::MulSub(hn::LoadU(d, scores + i), factor, shift));
        sums = hn::Add(sums, e);
        hn::StoreU(e, d, scores + i);
    }
    for (; i < end; i += lanes) {
        const auto mask = lanes_before<T>(i, valid);
        const auto x = hn::IfThenElse(mask, hn::MulSub(hn::LoadU(d, scores + i), factor, shift), hn::Zero(d));
        const auto e = hn::IfThenElseZero(mask, hn::Exp(d, x));
        sums = hn::Add(sums, e);
        hn::StoreU(e, d, scores + i);
    }
    *sum = hn::GetLane(hn::SumOfLanes(d, sums));
    return max + std::log(*sum);
}

template <class T>
void softmax_backward(T* scores, T* d_probability, i64 valid, i64 end, T scale, T log_sum_exp, T delta) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    const auto factor = hn::Set(d, scale), shift = hn::Set(d, log_sum_exp), mean = hn::Set(d, delta);
    for (i64 i = 0; i < end; i += lanes) {
        const auto mask = lanes_before<T>(i, valid);
        const auto x = hn::IfThenElse(mask, hn::MulSub(hn::LoadU(d, scores + i), factor, shift), hn::Zero(d));
        const auto p = hn::IfThenElseZero(mask, hn::Exp(d, x));
        const auto gradient = hn::Mul(hn::Mul(p, factor), hn::Sub(hn::LoadU(d, d_probability + i), mean));
        hn::StoreU(p, d, scores + i);
        hn::StoreU(hn::IfThenElseZero(mask, gradient), d, d_probability + i);
    }
}

template <class T>
T dot(const T* x, const T* y, i64 count) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    auto sums = hn::Zero(d);
    i64 i = 0;
    for (; i + lanes <= count; i += lanes) sums = hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), sums);
    if (i < count) {
        const auto mask = lanes_before<T>(i, count);
        sums = hn::MulAdd(hn::MaskedLoad(mask, d, x + i), hn::MaskedLoad(mask, d, y + i), sums);
    }
    return hn::GetLane(hn::SumOfLanes(d, sums));
}

template <class T>
void multiply_by(T* x, i64 count, T factor) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    const auto factors = hn::Set(d, factor);
    i64 i = 0;
    for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, x + i), factors), d, x + i);
    for (; i < count; ++i) x[i] *= factor;
}

template <class T>
const AttentionKernels<T>& kernels() {
    static_assert(hn::MaxLanes(Lanes<T>()) <= static_cast<std::size_t>(kAttentionSlack));
    static const AttentionKernels<T> table{&exponentiate<T>, &softmax_backward<T>, &dot<T>, &multiply_by<T>};
    return table;
}
const AttentionKernels<float>& kernels_f32() {
    return kernels<float>();
}
const AttentionKernels<double>& kernels_f64() {
    return kernels<double>();
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic {
namespace {

HWY_EXPORT(kernels_f32);
HWY_EXPORT(kernels_f64);

}  // namespace

template <>
const AttentionKernels<float>& attention_kernels<float>() {
    return HWY_DYNAMIC_DISPATCH(kernels_f32)();
}
template <>
const AttentionKernels<double>& attention_kernels<double>() {
    return HWY_DYNAMIC_DISPATCH(kernels_f64)();
}

}  // namespace moesaic
#endif
