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

/// Puts an exponential where its score stood.
struct AsItIs {
    template <class V>
    static HWY_INLINE V of(V x) {
        return x;
    }
};
/// A pair of bf16: half a unit in the last place is added to what the first leaves, and the rest cut.
struct InParts {
    template <class V>
    static HWY_INLINE V of(V x) {
        const hn::DFromV<V> d;
        const hn::RebindToUnsigned<decltype(d)> bits;
        const auto upper = hn::Set(bits, 0xffff0000u);
        const auto first = hn::And(hn::BitCast(bits, x), upper);
        const auto left = hn::BitCast(bits, hn::Sub(x, hn::BitCast(d, first)));
        const auto second = hn::And(hn::Add(left, hn::Set(bits, 0x8000u)), upper);
        return hn::BitCast(d, hn::Or(hn::ShiftRight<16>(first), second));
    }
};

template <class T, class Put>
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
        hn::StoreU(Put::of(x), d, scores + i);
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

/// Probabilities and gradients of scores of one key, rounded to bf16.
struct KeyGradients {
    cpu::HWY_NAMESPACE::BFloat16Bits<Lanes<float>> probability, d_score;
};
template <class Rounding>
HWY_INLINE KeyGradients key_gradients(const TileSoftmax& tile, i64 key, i64 query) {
    const Lanes<float> d;
    const hn::RebindToSigned<decltype(d)> keys;
    const auto number = hn::Set(keys, static_cast<i32>(tile.key + key));
    const auto counts =
        hn::RebindMask(d, hn::Not(hn::Or(hn::Gt(hn::LoadU(keys, tile.first_key + query), number),
                                         hn::Lt(hn::LoadU(keys, tile.last_key + query), number))));
    const i64 place = key * kTileSide + query;
    const auto factor = hn::Set(d, tile.scale);
    const auto x =
        hn::MulSub(hn::LoadU(d, tile.scores + place), factor, hn::LoadU(d, tile.log_sum_exp + query));
    const auto p = hn::IfThenElseZero(counts, hn::Exp(d, hn::IfThenElseZero(counts, x)));
    const auto difference =
        hn::Sub(hn::LoadU(d, tile.d_probabilities + place), hn::LoadU(d, tile.delta + query));
    const auto gradient = hn::IfThenElseZero(counts, hn::Mul(hn::Mul(p, factor), difference));
    return {Rounding::round(d, p), Rounding::round(d, gradient)};
}

template <class Rounding>
void tile_softmax_backward_by(const TileSoftmax& tile) {
    const Lanes<float> d;
    const hn::Rebind<std::uint16_t, decltype(d)> halves;
    const hn::RebindToUnsigned<decltype(d)> pairs;
    const auto put = [&](const KeyGradients& from, i64 place) HWY_ATTR {
        hn::StoreU(from.probability, halves, &tile.probabilities[place].bits);
        hn::StoreU(from.d_score, halves, &tile.d_scores[place].bits);
    };
    for (i64 key = 0; key < kTileSide; key += 2) {
        for (i64 query = 0; query < kTileSide; query += static_cast<i64>(hn::Lanes(d))) {
            const KeyGradients first = key_gradients<Rounding>(tile, key, query);
            const KeyGradients second = key_gradients<Rounding>(tile, key + 1, query);
            put(first, key * tile.row_stride + query);
            put(second, (key + 1) * tile.row_stride + query);
            const auto pair = hn::Or(hn::PromoteTo(pairs, first.d_score),
                                     hn::ShiftLeft<16>(hn::PromoteTo(pairs, second.d_score)));
            hn::StoreU(hn::BitCast(d, pair), d, tile.d_score_pairs + key / 2 * kTileSide + query);
        }
    }
}
void tile_softmax_backward(const TileSoftmax& tile) {
    cpu::HWY_NAMESPACE::with_rounding([&](auto rounding)
                                          HWY_ATTR { tile_softmax_backward_by<decltype(rounding)>(tile); });
}

template <class T, class Stored>
T dot(const Stored* x, const Stored* y, i64 count) {
    const Lanes<T> d;
    const i64 lanes = static_cast<i64>(hn::Lanes(d));
    auto sums = hn::Zero(d);
    for (i64 i = 0; i < count; i += lanes)
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
    static const AttentionKernels<T> table{&exponentiate<T, AsItIs>, &softmax_backward<T>, &dot<T, T>,
                                           &multiply_by<T>};
    return table;
}
const AttentionKernels<float>& kernels_f32() {
    return kernels<float>();
}
const AttentionKernels<double>& kernels_f64() {
    return kernels<double>();
}
const TileAttentionKernels& kernels_of_tiles() {
    static const TileAttentionKernels table{&exponentiate<float, InParts>, &tile_softmax_backward,
                                            &dot<float, BFloat16>};
    return table;
}

}  // namespace
}  // namespace moesaic::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moesaic {
namespace {

HWY_EXPORT(kernels_f32);
HWY_EXPORT(kernels_f64);
HWY_EXPORT(kernels_of_tiles);

}  // namespace

template <>
const AttentionKernels<float>& attention_kernels<float>() {
    return HWY_DYNAMIC_DISPATCH(kernels_f32)();
}
template <>
const AttentionKernels<double>& attention_kernels<double>() {
    return HWY_DYNAMIC_DISPATCH(kernels_f64)();
}
const TileAttentionKernels& tile_attention_kernels() {
    return HWY_DYNAMIC_DISPATCH(kernels_of_tiles)();
}

}  // namespace moesaic
#endif
