// Functors of choosing experts; runtime/backend.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

inline constexpr i64 kMostGroups = 256;

/// Chooses one after the other: each is the best that comes after the one before.
template <class T>
struct TopKRow {
    const T *scores, *bias;  ///< bias may be null
    i32* index;
    T* value;
    i64 columns, choices, groups, top_groups;
    bool two_best;  ///< groups compete by the sum of their two best
    __device__ void operator()(i64 row, const Warp& warp) const;
};
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

// A stable counting sort in three launches: counts of each chunk and group, where each begins, and the
// places.
inline constexpr i64 kKeysPerChunk = 256;
struct KeyCountElement {  ///< i = chunk * groups + group
    const i32* key;
    i64 keys, groups;
    i32* begin;
    __device__ void operator()(i64 i) const;
};
struct KeyBeginElement {  ///< one thread a group: its chunks' counts become where they begin within the group
    i32* begin;
    i64 chunks, groups;
    i64* counts;
    __device__ void operator()(i64 group) const;
};
struct KeyPlaceElement {  ///< i = chunk * groups + group
    const i32 *key, *begin;
    const i64* counts;
    i64 keys, groups;
    i32* order;
    __device__ void operator()(i64 i) const;
};

}  // namespace moesaic::kernels
