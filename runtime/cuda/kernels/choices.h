// Functors of routers' softmax and of choosing experts; runtime/backend.h says what they compute. A warp
// keeps a row in registers: 32 * per_lane columns at most, or any number, which are then read again and
// again, where per_lane is 0.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

inline constexpr i64 kMostGroups = 256;

template <class T, int per_lane>
struct SoftmaxRow {
    const T* logits;
    T *probability, *log_sum_exp;
    i64 columns;
    __device__ void operator()(i64 row, const Warp& warp) const;
};

/// Chooses one after the other.
template <class T, int per_lane>
struct TopKRow {
    const T *scores, *bias;  ///< bias may be null
    i32* index;
    T* value;
    i64 columns, choices, groups, top_groups;
    bool two_best;  ///< groups compete by the sum of their two best
    __device__ void operator()(i64 row, const Warp& warp) const;
};

}  // namespace moesaic::kernels
