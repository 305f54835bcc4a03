#include "runtime/cuda/kernels/elementwise.h"

#include "runtime/cuda/kernels/tile_kernels.h"

namespace moesaic::kernels {

template <class T>
__device__ void FillElement<T>::operator()(i64 i) const {
    y[i] = value;
}

template <class Stored, bool are_whole>
__device__ void AddQuads<Stored, are_whole>::operator()(i64 first, i64 room) const {
    Quad<Stored> sum = load_quad<are_whole>(y + first, room);
    const Quad<Stored> addend = load_quad<are_whole>(x + first, room);
    set_each(sum, [&](int i) { return sum[i] + addend[i]; });
    store_quad<are_whole>(y + first, room, sum);
}

/// Adding 1.5 * 2^52 steps leaves no room for anything finer than a step.
__device__ inline double rounded(double part, double step, double limit) {
    if (!(step > 0)) return part;
    const double shift = 6755399441055744.0 * step;
    return part >= -limit && part <= limit ? (part + shift) - shift
                                           : static_cast<double>(INFINITY) + (part - part);
}

template <class T, bool are_whole>
__device__ void FoldQuads<T, are_whole>::operator()(i64 first, i64 room) const {
    const Quad<T> addend = load_quad<are_whole>(part + first, room);
    Quad<double> total = load_quad<are_whole>(sum + first, room);
    set_each(total, [&](int i) { return total[i] + rounded(static_cast<double>(addend[i]), step, limit); });
    store_quad<are_whole>(sum + first, room, total);
    store_quad<are_whole>(part + first, room, zero_quad<T>());
}

/// f64 to bf16 rounded once: through f32 a value beside a tie could become the tie and round a second time.
/// Returns the f32 that rounds to the same bf16.
__device__ inline float narrowed(double value, const Bf16*) {
    const float nearest = static_cast<float>(value);
    const u32 bits = __float_as_uint(nearest);
    const double lost = value - static_cast<double>(nearest);
    if ((bits & 0xffffu) != 0x8000u || !(lost > 0 || lost < 0)) return nearest;
    const bool outward = (lost > 0) == (value > 0);
    return __uint_as_float(outward ? bits + 1 : bits - 1);
}
__device__ inline float narrowed(float value, const Bf16*) {
    return value;
}
template <class From, class To>
__device__ inline To narrowed(From value, const To*) {
    return static_cast<To>(value);
}

template <class From, class To, bool are_whole>
__device__ void ConvertQuads<From, To, are_whole>::operator()(i64 first, i64 room) const {
    const Quad<From> wide = load_quad<are_whole>(from + first, room);
    Quad<To> narrow = zero_quad<To>();
    set_each(narrow, [&](int i) { return narrowed(wide[i], to); });
    store_quad<are_whole>(to + first, room, narrow);
}

template <class Stored, bool are_whole>
__device__ void ScaleQuads<Stored, are_whole>::operator()(i64 first, i64 room) const {
    Quad<Stored> scaled = load_quad<are_whole>(y + first, room);
    set_each(scaled, [&](int i) { return scaled[i] * factor; });
    store_quad<are_whole>(y + first, room, scaled);
}

template <class Stored, bool are_whole>
__device__ void ClampQuads<Stored, are_whole>::operator()(i64 first, i64 room) const {
    Quad<Stored> clamped = load_quad<are_whole>(y + first, room);
    set_each(clamped, [&](int i) {
        const Real<Stored> value = clamped[i];  // NaN passes
        return value > limit ? limit : value < -limit ? -limit : value;
    });
    store_quad<are_whole>(y + first, room, clamped);
}

template <class Stored, bool are_whole>
__device__ void ClampGradQuads<Stored, are_whole>::operator()(i64 first, i64 room) const {
    const Quad<Stored> values = load_quad<are_whole>(y + first, room);
    Quad<Stored> gradient = load_quad<are_whole>(dy + first, room);
    set_each(gradient, [&](int i) {
        return (values[i] < 0 ? -values[i] : values[i]) >= limit ? Real<Stored>{0} : gradient[i];
    });
    store_quad<are_whole>(dy + first, room, gradient);
}

template <class Stored, bool are_whole>
__device__ void MultiplyQuads<Stored, are_whole>::operator()(i64 first, i64 room) const {
    const Quad<Stored> values = load_quad<are_whole>(x + first, room);
    const Quad<Real<Stored>> factors = load_quad<are_whole>(factor + first, room);
    Quad<Stored> sum = accumulate ? load_quad<are_whole>(y + first, room) : zero_quad<Stored>();
    set_each(sum, [&](int i) {
        const Real<Stored> product = values[i] * factors[i];
        return accumulate ? sum[i] + product : product;
    });
    store_quad<are_whole>(y + first, room, sum);
}

template <class T, bool are_whole>
__device__ void AdamWQuads<T, are_whole>::operator()(i64 first, i64 room) const {
    const Quad<T> gradients = load_quad<are_whole>(gradient + first, room);
    Quad<T> firsts = load_quad<are_whole>(first_moment + first, room);
    Quad<T> seconds = load_quad<are_whole>(second_moment + first, room);
    Quad<T> parameters = load_quad<are_whole>(parameter + first, room);
    const auto g = [&](int i) { return gradients[i] * gradient_scale; };
    set_each(firsts, [&](int i) { return std::fma(beta1, firsts[i], one_minus_beta1 * g(i)); });
    set_each(seconds, [&](int i) { return std::fma(beta2, seconds[i], one_minus_beta2 * (g(i) * g(i))); });
    set_each(parameters, [&](int i) {
        const T denominator = std::sqrt(seconds[i]) / root_correction + eps;
        return std::fma(-step_size, firsts[i] / denominator, parameters[i] * decay);
    });
    store_quad<are_whole>(first_moment + first, room, firsts);
    store_quad<are_whole>(second_moment + first, room, seconds);
    store_quad<are_whole>(parameter + first, room, parameters);
    if constexpr (sizeof(T) == sizeof(float)) {
        if (!rounded) return;
        Quad<Bf16> narrow = zero_quad<Bf16>();
        set_each(narrow, [&](int i) { return parameters[i]; });
        store_quad<are_whole>(rounded + first, room, narrow);
    }
}

/// Philox4x32-10 (Salmon et al. 2011) on the counter (index, 0).
__device__ inline void philox(u32 key0, u32 key1, u64 index, u32 (&c)[4]) {
    c[0] = static_cast<u32>(index);
    c[1] = static_cast<u32>(index >> 32);
    c[2] = c[3] = 0;
    for (int round = 0; round < 10; ++round) {
        const u32 high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
        const u32 high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
        c[0] = high1 ^ c[1] ^ key0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ key1;
        c[3] = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

template <class T>
__device__ void RandomElement<T>::operator()(i64 i) const {
    u32 words[4];
    philox(key0, key1, first + static_cast<u64>(i), words);
    constexpr double kTwoPi = 6.283185307179586, kTo32 = 1.0 / 4294967296.0, kTo53 = 1.0 / 9007199254740992.0;
    if (normal) {
        const double u = (static_cast<double>(words[0]) + 1.0) * kTo32;
        const double v = static_cast<double>(words[1]) * kTo32;
        values[i] = static_cast<T>(std::sqrt(-2.0 * std::log(u)) * std::cos(kTwoPi * v));
    } else {
        const u64 random = (static_cast<u64>(words[0]) << 32 | words[1]) >> 11;
        values[i] = static_cast<T>(low + (high - low) * (static_cast<double>(random) * kTo53));
    }
}

template <class T, bool are_whole>
template <class Threads>
__device__ void SquaresRow<T, are_whole>::operator()(i64 row, const Threads& threads) const {
    constexpr int kBatch = 4;  // quads on their way at once
    const i64 end = smaller(count, (row + 1) * block), step = Threads::kSize * kQuad;
    double sums_of_places[kQuad] = {};
    for (i64 begin = row * block + threads.lane * kQuad; begin < end; begin += kBatch * step) {
        Quad<T> batch[kBatch] = {};
        GPU_UNROLL for (int turn = 0; turn < kBatch; ++turn) {
            const i64 first = begin + turn * step;
            batch[turn] = first < end ? load_quad<are_whole>(values + first, end - first) : zero_quad<T>();
        }
        GPU_UNROLL for (int turn = 0; turn < kBatch; ++turn) {
            for (int i = 0; i < kQuad; ++i) {
                const auto value = static_cast<double>(batch[turn][i]);
                sums_of_places[i] = std::fma(value, value, sums_of_places[i]);
            }
        }
    }
    const double sum =
        threads.sum((sums_of_places[0] + sums_of_places[1]) + (sums_of_places[2] + sums_of_places[3]));
    if (threads.lane == 0) sums[row] = sum;
}

/// Of ConvertQuads.
#define MOESAIC_CONVERT(...)                            \
    MOESAIC_EACH_QUAD(ConvertQuads<__VA_ARGS__, true>); \
    MOESAIC_EACH_QUAD(ConvertQuads<__VA_ARGS__, false>)

MOESAIC_FOR_REALS(MOESAIC_EACH, FillElement);
MOESAIC_FOR_QUADS(MOESAIC_EACH_QUAD, AddQuads);
MOESAIC_FOR_REAL_QUADS(MOESAIC_EACH_QUAD, FoldQuads);
MOESAIC_EACH_QUAD(ConvertQuads<double, double, false>);
MOESAIC_CONVERT(double, float);
MOESAIC_CONVERT(double, Bf16);
MOESAIC_CONVERT(float, float);
MOESAIC_CONVERT(float, Bf16);
MOESAIC_CONVERT(Bf16, float);
MOESAIC_CONVERT(Bf16, Bf16);
MOESAIC_FOR_QUADS(MOESAIC_EACH_QUAD, ScaleQuads);
MOESAIC_FOR_QUADS(MOESAIC_EACH_QUAD, ClampQuads);
MOESAIC_FOR_QUADS(MOESAIC_EACH_QUAD, ClampGradQuads);
MOESAIC_FOR_QUADS(MOESAIC_EACH_QUAD, MultiplyQuads);
MOESAIC_FOR_REAL_QUADS(MOESAIC_EACH_QUAD, AdamWQuads);
MOESAIC_FOR_REALS(MOESAIC_EACH, RandomElement);
MOESAIC_FOR_REAL_QUADS(MOESAIC_EACH_ROW_OF, SquaresRow);

}  // namespace moesaic::kernels
