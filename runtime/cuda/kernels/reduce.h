// The functor of sums, largest and smallest values over ranks; comm/communicator.h says in which order.
#pragma once

#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

enum class Reduction : std::uint8_t { sum, max, min };

/// into[i] = parts[i] op parts[elements + i] op ..., in this order; f64, f32, int64, int32. A NaN stays.
template <class T>
struct ReducePartsElement {
    const T* parts;
    i64 elements;
    int count;
    Reduction reduction;
    T* into;
    __device__ void operator()(i64 i) const;
};

}  // namespace moesaic::kernels
