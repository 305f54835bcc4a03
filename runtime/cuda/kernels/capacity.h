// Functors of capacities; runtime/backend.h says what they compute. Choices are sorted by object and expert
// first, so that each competes with its rivals alone.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

/// i is the choice: key is object * experts + expert, or -1 where there is none; kept is index, and order -1.
struct RivalKeyElement {
    const i32* index;
    i64 experts, choices, rows_per_object;
    i32 *key, *order, *kept;
    __device__ void operator()(i64 i) const;
};
/// i is a place in the order: the priority of the choice there.
template <class T>
struct RivalPriorityElement {
    const T* priority;
    const i32 *index, *order;
    i64 experts, choices;
    T* sorted;
    __device__ void operator()(i64 i) const;
};
/// i is a place in the order: a choice stays if fewer than `capacity` of its rivals come before it.
template <class T>
struct LimitElement {
    const T* sorted;  ///< null: those at lower places come before
    const i32 *key, *order, *first_place;
    const i64* rivals;  ///< of each key
    i64 capacity;
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
