// Functors of the softmax and of the losses; runtime/loss_operations.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"
#include "runtime/cuda/kernels/tiles.h"

namespace moesaic::kernels {

template <class T>
struct SoftmaxRow {
    const T* logits;
    T *probability, *log_sum_exp;
    i64 columns;
    __device__ void operator()(i64 row, const Warp& warp) const;
};

/// Exponentials are computed in T and summed in f64. `wrong` and `margin` may be null.
template <class T, bool are_whole>
struct CrossEntropyRow {
    const T* logits;
    const i32* target;
    double *loss, *log_sum_exp;
    i32* wrong;
    double* margin;
    i64 columns;
    template <class Threads>
    __device__ void operator()(i64 row, const Threads& threads) const;
};
template <class T, bool are_whole>
struct CrossEntropyGradTile {
    static constexpr int kRows = 1;
    static constexpr bool kPanelsFirst = false;
    const T* logits;
    const i32* target;
    const double* log_sum_exp;
    T* d_logits;
    double scale;
    i64 columns;
    __device__ void operator()(const Tile& tile) const;
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
