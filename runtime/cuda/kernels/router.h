// Functors of routers' gradients; runtime/backend.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

/// number is that of kBlockThreads / 32 rows; a warp goes through a row's columns 32 * per_lane at a time.
template <class T, int per_lane>
struct RouterGradRows {
    const T *probability, *log_sum_exp, *sigmoid_logits, *weight, *d_weight;  ///< sigmoid_logits may be null
    const i32* index;
    const double* balance_factor;  ///< may be null
    bool one_factor;               ///< one row of it for all objects
    int experts, choices;
    i64 rows, rows_per_object;
    bool over_choices;
    T weight_scale, inverse_weight_scale;
    double z_scale;
    T* d_logits;
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};

template <class T>
struct AddByChoiceElement {
    const double* factor;
    bool one_factor;
    const i32* index;
    i64 experts, choices, rows_per_object;
    T* d_weight;
    __device__ void operator()(i64 i) const;
};

}  // namespace moesaic::kernels
