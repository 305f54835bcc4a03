// Functors of the dense layers' operations; runtime/backend.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

/// A row of several groups of n columns counts as that many rows.
template <class Stored>
struct NormRow {
    const Stored *x, *weight;
    Stored* y;
    Real<Stored>* inverse_rms;
    i64 n;
    double eps;
    __device__ void operator()(i64 row, const Warp& warp) const;
};
template <class Stored>
struct NormGradRow {
    const Stored *x, *weight, *dy;
    const Real<Stored>* inverse_rms;
    Stored* dx;
    i64 n;
    bool accumulate;
    __device__ void operator()(i64 row, const Warp& warp) const;
};
/// Every column adds its rows in ascending order.
template <class Stored>
struct NormWeightGradElement {
    const Stored *x, *dy;
    const Real<Stored>* inverse_rms;
    Real<Stored>* d_weight;
    i64 rows, n;
    __device__ void operator()(i64 column) const;
};

/// Element i is pair i % (head_dim/2) of head i / (head_dim/2) % heads of the row.
template <class Stored>
struct RopeElement {
    Stored* x;
    const Real<Stored>*cosine, *sine;
    i64 row_stride, heads, head_dim, seq_len;
    bool inverse;
    __device__ void operator()(i64 i) const;
};

/// The first row with an index adds all rows with that index, in ascending order.
template <class Stored>
struct EmbeddingGradRow {
    const i32* index;
    const Stored* dy;
    Real<Stored>* d_table;
    i64 rows, width;
    __device__ void operator()(i64 row, const Warp& warp) const;
};

}  // namespace moesaic::kernels
