// A router's forward in one pass; runtime/backend.h says what it computes.
#pragma once

#include "runtime/cuda/kernels/choices.h"
#include "runtime/cuda/kernels/router_sums.h"

namespace moesaic::kernels {

inline constexpr i64 kMostRoutedExperts = 256, kMostRoutedChoices = 32;

/// number is a chunk's of `sums`, which has one tile: its tokens' scores, choices and weights, a warp a
/// token, and then the sums over them.
template <class T, int per_lane>
struct RouteChunk {
    const T *logits, *bias;                ///< bias may be null
    T *score, *probability, *log_sum_exp;  ///< score is null for softmax scores
    i32* index;
    T* weight;
    int columns, choices, groups, top_groups;
    bool two_best, by_logits, over_choices;
    T weight_scale;
    RouterSumChunk<T> sums;
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};

}  // namespace moesaic::kernels
