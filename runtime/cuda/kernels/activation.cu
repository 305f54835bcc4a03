#include "runtime/cuda/kernels/activation.h"

#include "runtime/cuda/kernels/tile_kernels.h"

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

/// `slope` is prelu's, `up` the other half's of swiglu.
template <Function kind, class T>
__device__ inline T activated(T value, T up, T slope) {
    if constexpr (kind == Function::swiglu) return value * sigmoid(value) * up;
    if constexpr (kind == Function::gelu) return value * normal_distribution(value);
    if constexpr (kind == Function::relu) return value > 0 ? value : T{0};
    return value > 0 ? value : slope * value;
}

template <Function kind, class Stored, bool are_whole>
__device__ void ActivationTile<kind, Stored, are_whole>::operator()(const Tile& tile) const {
    constexpr bool is_gated = kind == Function::swiglu;
    const i64 column = tile.column * kQuad, room = width - column;
    Quad<Stored> values[kRows] = {}, ups[kRows] = {};
    GPU_UNROLL for (int i = 0; i < kRows; ++i) {
        const i64 row = tile.row + i * tile.step;
        if (row >= tile.rows) continue;
        const Stored* const from = x + row * (is_gated ? 2 * width : width) + column;
        values[i] = load_quad<are_whole>(from, room);
        if constexpr (is_gated) ups[i] = load_quad<are_whole>(from + width, room);
    }
    GPU_UNROLL for (int i = 0; i < kRows; ++i) {
        const i64 row = tile.row + i * tile.step;
        if (row >= tile.rows) continue;
        Real<Stored> slope = 0;
        if constexpr (kind == Function::prelu) slope = slope_of(slopes, row);
        set_each(values[i], [&](int k) {
            return activated<kind>(values[i][k], is_gated ? ups[i][k] : Real<Stored>{0}, slope);
        });
        store_quad<are_whole>(y + row * width + column, room, values[i]);
    }
}

/// The derivative of the kinds that are not gated, times d.
template <Function kind, class T>
__device__ inline T activation_gradient(T value, T d, T slope) {
    if constexpr (kind == Function::gelu) {
        const T share = normal_distribution(value);  // first: it takes the more registers
        const T density = std::exp(value * value * T{-0.5}) * static_cast<T>(0.398942280401432678);
        return d * std::fma(value, density, share);
    }
    if constexpr (kind == Function::relu) return value > 0 ? d : T{0};
    return value > 0 ? d : slope * d;
}

template <Function kind, class Stored, bool are_whole>
__device__ void ActivationGradTile<kind, Stored, are_whole>::operator()(const Tile& tile) const {
    using T = Real<Stored>;
    const i64 column = tile.column * kQuad, room = width - column;
    const Quad<Stored> d = load_quad<are_whole>(dy + tile.row * width + column, room);
    if constexpr (kind == Function::swiglu) {
        const i64 at = tile.row * 2 * width + column;
        const Quad<Stored> gates = load_quad<are_whole>(x + at, room);
        const Quad<Stored> ups = load_quad<are_whole>(x + at + width, room);
        Quad<Stored> d_gates, d_ups;
        T shares[kQuad];
        for (int i = 0; i < kQuad; ++i) shares[i] = sigmoid(gates[i]);
        set_each(d_gates, [&](int i) {
            const T slope = std::fma(gates[i], sigmoid(-gates[i]), T{1});  // 1 - share would cancel
            return d[i] * ups[i] * shares[i] * slope;
        });
        set_each(d_ups, [&](int i) { return d[i] * gates[i] * shares[i]; });
        store_quad<are_whole>(dx + at, room, d_gates);
        store_quad<are_whole>(dx + at + width, room, d_ups);
    } else {
        const i64 at = tile.row * width + column;
        T slope = 0;
        if constexpr (kind == Function::prelu) slope = slope_of(slopes, tile.row);
        Quad<Stored> values = load_quad<are_whole>(x + at, room);
        set_each(values, [&](int i) { return activation_gradient<kind>(values[i], d[i], slope); });
        store_quad<are_whole>(dx + at, room, values);
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

#define MOESAIC_FOR_KINDS(Functor, ...)                        \
    MOESAIC_EACH_TILE(Functor<Function::swiglu, __VA_ARGS__>); \
    MOESAIC_EACH_TILE(Functor<Function::gelu, __VA_ARGS__>);   \
    MOESAIC_EACH_TILE(Functor<Function::relu, __VA_ARGS__>);   \
    MOESAIC_EACH_TILE(Functor<Function::prelu, __VA_ARGS__>)
#define MOESAIC_FOR_KINDS_AND_QUADS(Functor)   \
    MOESAIC_FOR_KINDS(Functor, float, true);   \
    MOESAIC_FOR_KINDS(Functor, float, false);  \
    MOESAIC_FOR_KINDS(Functor, double, false); \
    MOESAIC_FOR_KINDS(Functor, Bf16, true);    \
    MOESAIC_FOR_KINDS(Functor, Bf16, false)
MOESAIC_FOR_KINDS_AND_QUADS(ActivationTile);
MOESAIC_FOR_KINDS_AND_QUADS(ActivationGradTile);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, SlopeGradRow);

}  // namespace moesaic::kernels
