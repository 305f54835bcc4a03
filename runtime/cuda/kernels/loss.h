// Functors of the losses; runtime/loss_operations.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

inline constexpr i64 kColumnsOfWarp = 1024;  ///< a row of more is for a block
/// Exponentials are computed in T and summed in f64. `wrong` and `margin` may be null.
template <class T>
struct CrossEntropyRow {
    const T* logits;
    const i32* target;
    double *loss, *log_sum_exp;
    i32* wrong;
    double* margin;
    i64 columns;
    __device__ void operator()(i64 row, const Warp& warp) const;
    __device__ void operator()(i64 row, const ThreadBlock& block) const;
};
inline constexpr i64 kGradColumns = 1024;
template <class T>
struct CrossEntropyGradPart {  ///< number = row * parts + part of kGradColumns columns
    const T* logits;
    const i32* target;
    const double* log_sum_exp;
    T* d_logits;
    double scale;
    i64 columns, parts;
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};

template <class T>
struct SquaredErrorRow {
    const T* output;
    const double* target;
    double* loss;
    i64 outputs;
    __device__ void operator()(i64 row) const;
};
template <class T>
struct SquaredErrorGradElement {
    const T* output;
    const double* target;
    T* d_output;
    double factor;
    __device__ void operator()(i64 i) const;
};

}  // namespace moesaic::kernels
