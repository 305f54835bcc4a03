#include "runtime/cuda/kernels/elementwise.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

template <class T>
__device__ void FillElement<T>::operator()(i64 i) const {
    y[i] = value;
}

template <class Stored>
__device__ void AddElement<Stored>::operator()(i64 i) const {
    write(y[i], read(y[i]) + read(x[i]));
}

/// Adding 1.5 * 2^52 steps leaves no room for anything finer than a step.
__device__ inline double rounded(double part, double step, double limit) {
    if (!(step > 0)) return part;
    const double shift = 6755399441055744.0 * step;
    return part >= -limit && part <= limit ? (part + shift) - shift : nan("");
}

template <class T>
__device__ void FoldElement<T>::operator()(i64 i) const {
    sum[i] += rounded(static_cast<double>(part[i]), step, limit);
    part[i] = 0;
}

/// f64 to bf16 rounded once: through f32 a value beside a tie could become the tie and round a second time.
__device__ inline void write_narrow(Bf16& to, double value) {
    const float nearest = static_cast<float>(value);
    const u32 bits = __float_as_uint(nearest);
    const double lost = value - static_cast<double>(nearest);
    if ((bits & 0xffffu) != 0x8000u || !(lost > 0 || lost < 0)) return write(to, nearest);
    const bool outward = (lost > 0) == (value > 0);
    write(to, __uint_as_float(outward ? bits + 1 : bits - 1));
}
__device__ inline void write_narrow(Bf16& to, float value) {
    write(to, value);
}
__device__ inline void write_narrow(float& to, double value) {
    to = static_cast<float>(value);
}
__device__ inline void write_narrow(float& to, float value) {
    to = value;
}
__device__ inline void write_narrow(double& to, double value) {
    to = value;
}

template <class From, class To>
__device__ void ConvertElement<From, To>::operator()(i64 i) const {
    write_narrow(to[i], read(from[i]));
}

template <class Stored>
__device__ void ScaleElement<Stored>::operator()(i64 i) const {
    write(y[i], read(y[i]) * factor);
}

template <class Stored>
__device__ void ClampElement<Stored>::operator()(i64 i) const {
    const Real<Stored> value = read(y[i]);  // NaN passes
    write(y[i], value > limit ? limit : value < -limit ? -limit : value);
}

template <class Stored>
__device__ void ClampGradElement<Stored>::operator()(i64 i) const {
    const Real<Stored> value = read(y[i]);
    if ((value < 0 ? -value : value) >= limit) write(dy[i], Real<Stored>{0});
}

template <class Stored>
__device__ void MultiplyElement<Stored>::operator()(i64 i) const {
    const Real<Stored> product = read(x[i]) * factor[i];
    write(y[i], accumulate ? read(y[i]) + product : product);
}

template <class T>
__device__ void AdamWElement<T>::operator()(i64 i) const {
    const T g = gradient[i] * gradient_scale;
    const T m = std::fma(beta1, first_moment[i], one_minus_beta1 * g);
    const T v = std::fma(beta2, second_moment[i], one_minus_beta2 * (g * g));
    const T denominator = std::sqrt(v) / root_correction + eps;
    first_moment[i] = m;
    second_moment[i] = v;
    parameter[i] = std::fma(-step_size, m / denominator, parameter[i] * decay);
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

template <class T>
__device__ void SquaresRow<T>::operator()(i64 row, const Warp& warp) const {
    const i64 end = smaller(count, (row + 1) * block);
    double sum = 0;
    for (i64 i = row * block + warp.lane; i < end; i += Warp::kSize) {
        const auto value = static_cast<double>(values[i]);
        sum = std::fma(value, value, sum);
    }
    sum = warp.sum(sum);
    if (warp.lane == 0) sums[row] = sum;
}

MOESAIC_FOR_REALS(MOESAIC_EACH, FillElement);
MOESAIC_FOR_STORED(MOESAIC_EACH, AddElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, FoldElement);
MOESAIC_EACH(ConvertElement<double, double>);
MOESAIC_EACH(ConvertElement<double, float>);
MOESAIC_EACH(ConvertElement<double, Bf16>);
MOESAIC_EACH(ConvertElement<float, float>);
MOESAIC_EACH(ConvertElement<float, Bf16>);
MOESAIC_EACH(ConvertElement<Bf16, float>);
MOESAIC_EACH(ConvertElement<Bf16, Bf16>);
MOESAIC_FOR_STORED(MOESAIC_EACH, ScaleElement);
MOESAIC_FOR_STORED(MOESAIC_EACH, ClampElement);
MOESAIC_FOR_STORED(MOESAIC_EACH, ClampGradElement);
MOESAIC_FOR_STORED(MOESAIC_EACH, MultiplyElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, AdamWElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, RandomElement);
MOESAIC_FOR_REALS(MOESAIC_EACH_ROW, SquaresRow);

}  // namespace moesaic::kernels
