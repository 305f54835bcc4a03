// Functors of choices' weights; runtime/backend.h says what they compute.
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

}  // namespace moesaic::kernels
