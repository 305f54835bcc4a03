// Functors of routers' scores, noise and prototypes; runtime/router_operations.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

template <class T>
struct SigmoidRow {
    const T* logits;
    T *score, *probability, *log_sum_exp;
    i64 experts;
    __device__ void operator()(i64 row, const Warp& warp) const;
};

// Sinkhorn: exponentials once, then in each iteration every row's factor and every column's sum.
template <class T>
struct SinkhornPowerRow {
    const T* logits;
    double* work;
    i64 experts;
    __device__ void operator()(i64 row, const Warp& warp) const;
};
struct SinkhornFactorRow {
    const double *work, *column;
    double* factor;
    i64 experts, rows_per_object;
    __device__ void operator()(i64 row, const Warp& warp) const;
};
struct SinkhornColumnPart {  ///< number = object * tiles + tile of kColumnsOfBlock experts
    const double *work, *factor;
    double* column;
    i64 tokens, experts, rows_per_object, tiles;
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};
template <class T>
struct SinkhornScoreElement {
    const T* logits;
    const double* column;
    T* scores;
    i64 experts, rows_per_object;
    __device__ void operator()(i64 i) const;
};

template <class T>
struct NoisyLogitElement {
    const T *clean, *spread, *noise;
    T* logits;
    __device__ void operator()(i64 i) const;
};
template <class T>
struct NoisyLogitGradElement {
    const T *spread, *noise, *d_logits;
    T *d_clean, *d_spread;
    __device__ void operator()(i64 i) const;
};
template <class T>
struct NoisyLoadElement {
    const T *clean, *spread, *logits;
    const i32* ranked;
    T* probability;
    i64 experts, choices;
    __device__ void operator()(i64 i) const;
};
template <class T>
struct NoisyLoadGradRow {
    const T *clean, *spread, *logits;
    const i32* ranked;
    const double* factor;
    bool one_factor;
    i64 experts, choices, rows_per_object;
    T *d_clean, *d_spread, *d_logits;
    __device__ void operator()(i64 row, const Warp& warp) const;
};

template <class Stored>
struct PrototypeElement {  ///< i = row * experts + expert
    const Stored *x, *prototype;
    Real<Stored>* logits;
    i64 experts, width;
    __device__ void operator()(i64 i) const;
};
template <class Stored>
struct PrototypeInputGradElement {  ///< i = row * width + column
    const Stored *x, *prototype;
    const Real<Stored>* d_logits;
    Stored* dx;
    i64 experts, width;
    __device__ void operator()(i64 i) const;
};
template <class Stored>
struct PrototypeGradElement {  ///< i = expert * width + column; rows in ascending order
    const Stored *x, *prototype;
    const Real<Stored>* d_logits;
    Real<Stored>* d_prototype;
    i64 rows, experts, width;
    __device__ void operator()(i64 i) const;
};

/// One row: all experts.
template <class T>
struct BalanceBiasRow {
    const i64* counts;
    T* bias;
    i64 experts;
    double rate;
    bool recentre;
    __device__ void operator()(i64 row, const Warp& warp) const;
};

}  // namespace moesaic::kernels
