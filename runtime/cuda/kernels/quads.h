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
    __device__ float operator[](int i) const {
        return i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w;
    }
    __device__ void set(int i, float value) {
        (i == 0 ? raw.x : i == 1 ? raw.y : i == 2 ? raw.z : raw.w) = value;
    }
};
template <>
struct Quad<double> {
    double2 low, high;
    __device__ double operator[](int i) const {
        return i == 0 ? low.x : i == 1 ? low.y : i == 2 ? high.x : high.y;
    }
    __device__ void set(int i, double value) {
        (i == 0 ? low.x : i == 1 ? low.y : i == 2 ? high.x : high.y) = value;
    }
};
template <>
struct Quad<Bf16> {
    uint2 raw;
    __device__ float operator[](int i) const {
        const u32 word = i < 2 ? raw.x : raw.y;
        return __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
    }
    __device__ void set_bits(int i, u32 bits) {
        u32& word = i < 2 ? raw.x : raw.y;
        word = i % 2 == 0 ? (word & 0xffff0000u) | bits : (word & 0xffffu) | bits << 16;
    }
    __device__ void set(int i, float value) {
        Bf16 narrow;
        write(narrow, value);
        set_bits(i, narrow.bits);
    }
};

template <class Stored>
__device__ inline Quad<Stored> zero_quad() {
    Quad<Stored> quad{};
    return quad;
}

/// The elements from `from` on of which there are `room`; zeros behind them.
template <bool is_whole, class Stored>
__device__ inline Quad<Stored> load_quad(const Stored* from, i64 room) {
    if constexpr (is_whole) {
        if (room >= kQuad) return *reinterpret_cast<const Quad<Stored>*>(from);
    }
    Quad<Stored> quad = zero_quad<Stored>();
    for (int i = 0; i < kQuad; ++i) {
        if (i >= room) continue;
        if constexpr (std::is_same_v<Stored, Bf16>) {
            quad.set_bits(i, from[i].bits);
        } else {
            quad.set(i, from[i]);
        }
    }
    return quad;
}

template <bool is_whole, class Stored>
__device__ inline void store_quad(Stored* to, i64 room, const Quad<Stored>& quad) {
    if constexpr (is_whole) {
        if (room >= kQuad) {
            *reinterpret_cast<Quad<Stored>*>(to) = quad;
            return;
        }
    }
    for (int i = 0; i < kQuad; ++i)
        if (i < room) write(to[i], quad[i]);
}

/// quad[i] = value(i).
template <class Stored, class Value>
__device__ inline void set_each(Quad<Stored>& quad, Value&& value) {
    for (int i = 0; i < kQuad; ++i) quad.set(i, value(i));
}

}  // namespace moesaic::kernels
