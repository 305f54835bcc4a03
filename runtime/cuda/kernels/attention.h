// Functors of attention: a warp for every query or key row of a head, tiles of 32 keys or queries, no matrix
// of scores in memory (Dao et al. 2022; Rabe and Staats 2021).
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

inline constexpr i64 kMostHeadColumns = 8;  ///< of a lane: head_dim is at most 32 times as much

/// Letters as in runtime/backend.h; first_key may be null.
struct HeadShape {
    i64 rows, heads, kv_heads, head_dim, seq_len;
    bool causal;
    const i32* first_key;
    double scale;  ///< of scores
};

/// Row i = head * rows + t.
template <class Stored>
struct AttentionRow {
    HeadShape shape;
    const Stored *q, *k, *v;
    Stored* out;
    Real<Stored>* log_sum_exp;
    __device__ void operator()(i64 i, const Warp& warp) const;
};

/// delta [heads, rows] = <d_out, out> of each head's row.
template <class Stored>
struct AttentionDeltaRow {
    HeadShape shape;
    const Stored *out, *d_out;
    Real<Stored>* delta;
    __device__ void operator()(i64 i, const Warp& warp) const;
};
/// dq, row i = head * rows + t.
template <class Stored>
struct QueryGradRow {
    HeadShape shape;
    const Stored *q, *k, *v, *d_out;
    const Real<Stored>*log_sum_exp, *delta;
    Stored* dq;
    __device__ void operator()(i64 i, const Warp& warp) const;
};
/// dk and dv, row i = key head * rows + u; query heads, and rows in each, in ascending order.
template <class Stored>
struct KeyGradRow {
    HeadShape shape;
    const Stored *q, *k, *v, *d_out;
    const Real<Stored>*log_sum_exp, *delta;
    Stored *dk, *dv;
    __device__ void operator()(i64 i, const Warp& warp) const;
};

}  // namespace moesaic::kernels
