// Functors of routers' sums, gradients and capacities; runtime/backend.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

enum class Counted : std::uint8_t { all, first, most_probable };  ///< CountedChoices

/// i = object * experts + expert; tokens in ascending order. Operands that a router has not are null.
template <class T>
struct RouterSumElement {
    const T *probability, *load_probability, *weight;
    const i32* index;
    i64 tokens, experts, choices, rows_per_object;
    Counted counted;
    i64 *counts, *balance_counts;
    double *probability_sum, *weight_sum, *load_sum;
    __device__ void operator()(i64 i) const;
};
template <class T>
struct RouterZSumElement {  ///< i is the object
    const T* log_sum_exp;
    i64 tokens, rows_per_object;
    double* z_sum;
    __device__ void operator()(i64 object) const;
};

template <class T>
struct RouterGradRow {
    const T *probability, *log_sum_exp, *sigmoid_logits, *weight, *d_weight;  ///< sigmoid_logits may be null
    const i32* index;
    const double* balance_factor;  ///< may be null
    bool one_factor;               ///< one row of it for all objects
    i64 experts, choices, rows_per_object;
    bool over_choices;
    T weight_scale, inverse_weight_scale;
    double z_scale;
    T* d_logits;
    __device__ void operator()(i64 row, const Warp& warp) const;
};

template <class T>
struct ConfidenceRow {  ///< the row is the part
    const T *probability, *weight;
    i64 tokens, experts, choices, rows_per_part;
    double *entropy_sum, *first_weight_sum;
    __device__ void operator()(i64 part, const Warp& warp) const;
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

/// A choice stays if fewer than `capacity` of its expert's choices in its object come before it.
template <class T>
struct LimitElement {
    const i32* index;
    const T* priority;  ///< may be null
    i64 tokens, experts, choices, rows_per_object, capacity;
    i32* kept;
    __device__ void operator()(i64 i) const;
};
template <class T>
struct RescaleElement {  ///< i = token * choices + choice
    const T* weight;
    const i32 *index, *kept;
    T* out;
    i64 choices;
    __device__ void operator()(i64 i) const;
};
template <class T>
struct RescaleGradRow {
    const T *weight, *d_out;
    const i32 *index, *kept;
    T* d_weight;
    i64 choices;
    __device__ void operator()(i64 row) const;
};

}  // namespace moesaic::kernels
