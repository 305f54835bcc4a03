// Functor of experts' choice of tokens; runtime/router_operations.h says what it computes.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

/// number = object * experts + expert: the `take` tokens of the object that come first in the expert's
/// column.
template <class T>
struct ChosenTokensColumn {
    const T* scores;
    i32* index;
    i64 tokens, experts, rows_per_object, take;
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};

}  // namespace moesaic::kernels
