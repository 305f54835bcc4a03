// Four consecutive elements as registers hold them. For .cu files only.
#pragma once

#include "runtime/cuda/kernels/device.h"
#include "runtime/cuda/kernels/tiles.h"

namespace moesaic::kernels {

/// As stored; bf16 stays packed until an element is read.
template <class Stored>
struct Quad;

template <>
struct Quad<float> {
    float4 raw;
    __device__ static Quad of(float a, float b, float c, float d) { return {make_float4(a, b, c, d)}; }
    __device__ float operator[](int i) const {
        return i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
    }
};
template <>
struct Quad<double> {
    double2 low, high;
    __device__ static Quad of(double a, double b, double c, double d) {
        return {make_double2(a, b), make_double2(c, d)};
    }
    __device__ double operator[](int i) const {
        return i == 0 ? low.x : i == 1 ? low.y : i == 2 ? high.x : high.y;
    }
};
template <>
struct Quad<Bf16> {
    uint2 raw;
    /// To nearest, ties to even; NaN stays NaN.
    __device__ static Quad of(float a, float b, float c, float d) {
        return {make_uint2(gpu::bf16_pair(a, b), gpu::bf16_pair(c, d))};
    }
    __device__ float operator[](int i) const {
        const u32 word = i < 2 ? raw.x : raw.y;
        return __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
    }
};

template <class Stored>
__device__ inline Quad<Stored> zero_quad() {
    return {};
}

/// The elements from `from` on of which there are `room`; zeros behind them.
template <bool is_whole, class Stored>
__device__ inline Quad<Stored> load_quad(const Stored* from, i64 room) {
    if constexpr (is_whole) {
        if (room >= kQuad) return *reinterpret_cast<const Quad<Stored>*>(from);
    }
    Real<Stored> values[kQuad] = {};
    GPU_UNROLL for (int i = 0; i < kQuad; ++i) if (i < room) values[i] = read(from[i]);
    return Quad<Stored>::of(values[0], values[1], values[2], values[3]);
}

template <bool is_whole, class Stored>
__device__ inline void store_quad(Stored* to, i64 room, const Quad<Stored>& quad) {
    if constexpr (is_whole) {
        if (room >= kQuad) {
            *reinterpret_cast<Quad<Stored>*>(to) = quad;
            return;
        }
    }
    GPU_UNROLL for (int i = 0; i < kQuad; ++i) if (i < room) write(to[i], quad[i]);
}

/// quad[i] = value(i).
template <class Stored, class Value>
__device__ inline void set_each(Quad<Stored>& quad, Value&& value) {
    quad = Quad<Stored>::of(value(0), value(1), value(2), value(3));
}

}  // namespace moesaic::kernels
