// Functors of choices' weights and of moving rows; runtime/backend.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

template <class T>
struct ChoiceElement {
    const T* scores;
    const i32* index;
    T* value;
    i64 columns, choices;
    __device__ void operator()(i64 i) const;
};
template <class T>
struct NormalizedRow {
    T* x;
    T scale;
    i64 columns;
    __device__ void operator()(i64 row) const;
};

/// Elements of any type whose size is T's.
template <class T>
struct GatherElement {
    const T* in;
    const i32 *index, *place;  ///< place may be null
    T* out;
    i64 width;
    __device__ void operator()(i64 i) const;
};
template <class Stored>
struct GatherAddElement {
    const Stored* in;
    const i32* index;
    Stored* out;
    i64 width;
    __device__ void operator()(i64 i) const;
};

template <class Stored>
struct CombineElement {
    const Stored* rows;
    const i32* slot;
    const Real<Stored>* weight;  ///< may be null
    Stored* y;
    i64 choices, width;
    bool accumulate;
    __device__ void operator()(i64 i) const;
};
/// A row for each choice.
template <class Stored>
struct CombineGradRow {
    const Stored *rows, *dy;
    const i32* slot;
    const Real<Stored>* weight;  ///< may be null
    Stored* d_rows;
    Real<Stored>* d_weight;  ///< may be null
    i64 choices, width;
    __device__ void operator()(i64 choice, const Warp& warp) const;
};

template <class Stored>
struct GateElement {
    const Real<Stored>* logit;
    const Stored* rows;
    Stored* y;
    i64 width;
    __device__ void operator()(i64 i) const;
};
template <class Stored>
struct GateGradRow {
    const Real<Stored>* logit;
    const Stored *rows, *dy;
    Stored* d_rows;
    Real<Stored>* d_logit;
    i64 width;
    __device__ void operator()(i64 row, const Warp& warp) const;
};

}  // namespace moesaic::kernels
