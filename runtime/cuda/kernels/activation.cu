#include "runtime/cuda/kernels/activation.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

/// Phi(x), whose tail keeps its digits.
template <class T>
__device__ inline T normal_distribution(T x) {
    return std::erfc(x * static_cast<T>(-0.70710678118654752)) / 2;
}

template <class Stored>
__device__ inline Real<Stored> slope_of(const Slopes<Stored>& slopes, i64 row) {
    i64 low = 0, high = slopes.groups;  // the last group that begins at or before the row
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        (slopes.first_row[middle] <= row ? low : high) = middle;
    }
    return read(slopes.slope[low]);
}

template <Function kind, class Stored>
__device__ void ActivationElement<kind, Stored>::operator()(i64 i) const {
    using T = Real<Stored>;
    const i64 row = i / width, column = i % width;
    if constexpr (kind == Function::swiglu) {
        const Stored* const from = x + row * 2 * width + column;
        const T gate = read(from[0]);
        write(y[i], gate * sigmoid(gate) * read(from[width]));
    } else {
        const T value = read(x[i]);
        if constexpr (kind == Function::gelu) write(y[i], value * normal_distribution(value));
        if constexpr (kind == Function::relu) write(y[i], value > 0 ? value : T{0});
        if constexpr (kind == Function::prelu) write(y[i], value > 0 ? value : slope_of(slopes, row) * value);
    }
}

template <Function kind, class Stored>
__device__ void ActivationGradElement<kind, Stored>::operator()(i64 i) const {
    using T = Real<Stored>;
    const i64 row = i / width, column = i % width;
    const T d = read(dy[i]);
    if constexpr (kind == Function::swiglu) {
        const i64 at = row * 2 * width + column;
        const T gate = read(x[at]), up = read(x[at + width]), share = sigmoid(gate);
        const T slope = std::fma(gate, sigmoid(-gate), T{1});  // 1 - share would cancel
        write(dx[at], d * up * share * slope);
        write(dx[at + width], d * gate * share);
    } else {
        const T value = read(x[i]);
        if constexpr (kind == Function::gelu) {
            const T share = normal_distribution(value);  // first: it takes the more registers
            const T density = std::exp(value * value * T{-0.5}) * static_cast<T>(0.398942280401432678);
            write(dx[i], d * std::fma(value, density, share));
        }
        if constexpr (kind == Function::relu) write(dx[i], value > 0 ? d : T{0});
        if constexpr (kind == Function::prelu) write(dx[i], value > 0 ? d : slope_of(slopes, row) * d);
    }
}

template <class Stored>
__device__ void SlopeGradRow<Stored>::operator()(i64 group, const Warp& warp) const {
    double sum =
        warp.lane == 0 ? d_slope[group] : 0;  // which that lane writes, in no order with others' reads
    for (i64 row = first_row[group]; row < first_row[group + 1]; ++row) {
        double part = 0;
        for (i64 i = row * width + warp.lane; i < (row + 1) * width; i += Warp::kSize)
            part +=
                static_cast<double>(read(dy[i])) * static_cast<double>(smaller(read(x[i]), Real<Stored>{0}));
        sum += warp.sum(part);
    }
    if (warp.lane == 0) d_slope[group] = sum;
}

#define MOESAIC_FOR_KINDS(Functor, Stored)           \
    MOESAIC_EACH(Functor<Function::swiglu, Stored>); \
    MOESAIC_EACH(Functor<Function::gelu, Stored>);   \
    MOESAIC_EACH(Functor<Function::relu, Stored>);   \
    MOESAIC_EACH(Functor<Function::prelu, Stored>)
MOESAIC_FOR_KINDS(ActivationElement, float);
MOESAIC_FOR_KINDS(ActivationElement, double);
MOESAIC_FOR_KINDS(ActivationElement, Bf16);
MOESAIC_FOR_KINDS(ActivationGradElement, float);
MOESAIC_FOR_KINDS(ActivationGradElement, double);
MOESAIC_FOR_KINDS(ActivationGradElement, Bf16);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, SlopeGradRow);

}  // namespace moesaic::kernels
