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

#include "runtime/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moesaic::HWY_NAMESPACE {
namespace {  // other files have functions of the same names here
namespace hn = hwy::HWY_NAMESPACE;

template <class T>
using Lanes = hn::ScalableTag<T>;

/// The lanes of the vector at `index` that lie in [first, valid).
template <class T>
HWY_INLINE auto lanes_within(i64 index, i64 first, i64 valid) {
    const Lanes<T> d;
    const auto before_valid = hn::FirstN(d, static_cast<std::size_t>(valid > index ? valid - index : 0));
    const auto before_first = hn::FirstN(d, static_cast<std::size_t>(first > index ? first - index : 0));
    return hn::AndNot(before_first, before_valid);
}

template <class T>
i64 clear_vectors_before(T* row, i64 first) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d)), begin = first / lanes * lanes;
    for (i64 i = 0; i < begin; i += lanes) hn::StoreU(hn::Zero(d), d, row + i);
    return begin;
}

template <class T>
T largest_score(const T* scores, i64 begin, const KeyRange& keys) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    const auto lowest = hn::Set(d, std::numeric_limits<T>::lowest());
    auto largest = lowest;
    for (i64 i = begin; i < keys.valid; i += lanes) {
        auto score = hn::LoadU(d, scores + i);
        if (i < keys.first || i + lanes > keys.valid)
            score = hn::IfThenElse(lanes_within<T>(i, keys.first, keys.valid), score, lowest);
        largest = hn::Max(largest, score);
    }
    return hn::GetLane(hn::MaxOfLanes(d, largest));
}

template <class T>
T exponentiate(T* scores, KeyRange keys, T scale, T* sum) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    const i64 begin = clear_vectors_before(scores, keys.first);
    const T max = largest_score(scores, begin, keys) * scale;
    const auto shift = hn::Set(d, max), factor = hn::Set(d, scale);
    auto sums = hn::Zero(d);
    for (i64 i = begin; i < keys.end; i += lanes) {
        auto x = hn::MulSub(hn::LoadU(d, scores + i), factor, shift);
        if (i < keys.first || i + lanes > keys.valid) {
            const auto mask = lanes_within<T>(i, keys.first, keys.valid);
            x = hn::IfThenElseZero(mask, hn::Exp(d, hn::IfThenElseZero(mask, x)));
        } else {
            x = hn::Exp(d, x);
        }
        sums = hn::Add(sums, x);
        hn::StoreU(x, d, scores + i);
    }
    *sum = hn::GetLane(hn::SumOfLanes(d, sums));
    return max + std::log(*sum);
}

template <class T>
void softmax_backward(T* scores, T* d_probability, KeyRange keys, T scale, T log_sum_exp, T delta) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    const auto factor = hn::Set(d, scale), shift = hn::Set(d, log_sum_exp), mean = hn::Set(d, delta);
    clear_vectors_before(d_probability, keys.first);
    for (i64 i = clear_vectors_before(scores, keys.first); i < keys.end; i += lanes) {
        const auto mask = lanes_within<T>(i, keys.first, keys.valid);
        const auto x = hn::IfThenElseZero(mask, hn::MulSub(hn::LoadU(d, scores + i), factor, shift));
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
    if (i < count)
        sums = hn::MulAdd(cpu::HWY_NAMESPACE::load(d, x + i, count - i),
                          cpu::HWY_NAMESPACE::load(d, y + i, count - i), sums);
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
