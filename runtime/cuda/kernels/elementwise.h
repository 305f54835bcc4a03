// Functors of the element-wise operations and of the optimizer; runtime/backend.h says what they compute.
// Those of quads take four elements, whole ones where are_whole_quads() of their operands holds.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"
#include "runtime/cuda/kernels/tiles.h"

namespace moesaic::kernels {

template <class T>
struct FillElement {
    T value;
    T* y;
    __device__ void operator()(i64 i) const;
};
template <class Stored, bool are_whole>
struct AddQuads {
    const Stored* x;
    Stored* y;
    __device__ void operator()(i64 first, i64 room) const;
};
template <class T, bool are_whole>
struct FoldQuads {
    T* part;
    double* sum;
    double step, limit;  // FoldRounding
    __device__ void operator()(i64 first, i64 room) const;
};
template <class From, class To, bool are_whole>
struct ConvertQuads {
    const From* from;
    To* to;
    __device__ void operator()(i64 first, i64 room) const;
};
template <class Stored, bool are_whole>
struct ScaleQuads {
    Real<Stored> factor;
    Stored* y;
    __device__ void operator()(i64 first, i64 room) const;
};
template <class Stored, bool are_whole>
struct ClampQuads {
    Real<Stored> limit;
    Stored* y;
    __device__ void operator()(i64 first, i64 room) const;
};
template <class Stored, bool are_whole>
struct ClampGradQuads {
    Real<Stored> limit;
    const Stored* y;
    Stored* dy;
    __device__ void operator()(i64 first, i64 room) const;
};
template <class Stored, bool are_whole>
struct MultiplyQuads {
    const Stored* x;
    const Real<Stored>* factor;
    Stored* y;
    bool accumulate;
    __device__ void operator()(i64 first, i64 room) const;
};

/// The factors of AdamW that are the same for all elements; computed in f64.
template <class T, bool are_whole>
struct AdamWQuads {
    T *parameter, *first_moment, *second_moment;
    const T* gradient;
    Bf16* rounded;  // or null
    T gradient_scale, decay, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, step_size, root_correction;
    __device__ void operator()(i64 first, i64 room) const;
};

/// Number first + i of the stream that the key names: runtime/base/philox.h.
template <class T>
struct RandomElement {
    u32 key0, key1;
    u64 first;
    bool normal;
    double low, high;
    T* values;
    __device__ void operator()(i64 i) const;
};

/// Of block_sum_squares.
template <class T, bool are_whole>
struct SquaresRow {
    const T* values;
    i64 count, block;
    double* sums;
    template <class Threads>
    __device__ void operator()(i64 row, const Threads& threads) const;
};

}  // namespace moesaic::kernels
