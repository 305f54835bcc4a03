// Functors of attention in tiles: a block of four warps for consecutive rows of a head, while the rows of the
// other side come by in tiles of shared memory; no matrix of scores in memory (Dao et al. 2022, Dao 2023).
// bf16 on tensor cores, f32 on the FMA units. attention.h has what they leave.
#pragma once

#include "runtime/cuda/kernels/attention.h"

namespace moesaic::kernels {

inline constexpr int kTileWarps = 4;

/// head_dim is a multiple of this,
template <class Stored>
inline constexpr i64 kHeadStep = 4;
template <>
inline constexpr i64 kHeadStep<Bf16> = 16;
/// and at most this. Operands begin at multiples of 16 bytes.
template <class Stored>
inline constexpr i64 kMostHeadDim = 128;
template <>
inline constexpr i64 kMostHeadDim<Bf16> = 256;

/// Rows of a block: of a warp on tensor cores 16, or twice that where registers allow, which halves how often
/// tiles are read (and takes about as long, README.md); on FMA units 8.
template <class Stored, bool twice>
inline constexpr int kBlockRows = (sizeof(Stored) == 2 ? (twice ? 32 : 16) : 8) * kTileWarps;

/// A HeadShape as kernels read it. Numbers of rows and heads are 32 bits wide and what follows from them is
/// there, to save registers; what counts elements is 64 bits wide.
struct TileShape {
    int rows, heads, kv_heads, group, head_dim, seq_len;  ///< group: heads of a key head
    int query_stride, key_stride;                         ///< from a row to the next
    bool causal;
    const i32* first_key;
    float scale;
};
[[nodiscard]] constexpr TileShape tile_shape(const HeadShape& shape) {
    const auto narrow = [](i64 number) { return static_cast<int>(number); };
    return {narrow(shape.rows),
            narrow(shape.heads),
            narrow(shape.kv_heads),
            narrow(shape.heads / shape.kv_heads),
            narrow(shape.head_dim),
            narrow(shape.seq_len),
            narrow(shape.heads * shape.head_dim),
            narrow(shape.kv_heads * shape.head_dim),
            shape.causal,
            shape.first_key,
            static_cast<float>(shape.scale)};
}

/// out and log_sum_exp of a block of query rows; kDim >= head_dim.
template <class Stored, int kDim>
struct AttentionTile {
    static constexpr int kRows = kBlockRows<Stored, (kDim == 64 || kDim == 128)>;
    static constexpr int kBlocks = kDim > 32 && sizeof(Stored) == 2 ? 2 : 3;  ///< that fit a multiprocessor
    TileShape shape;
    const Stored *q, *k, *v;
    Stored* out;
    float* log_sum_exp;

    [[nodiscard]] i64 blocks() const;
    __device__ void operator()() const;
};

/// dq and delta [heads, rows] = <d_out, out> of a block of query rows.
template <class Stored, int kDim>
struct QueryGradTile {
    static constexpr int kRows = kBlockRows<Stored, false>;
    static constexpr int kBlocks = sizeof(Stored) == 2 && kDim > 64 ? 2 : 3;
    TileShape shape;
    const Stored *q, *k, *v, *out, *d_out;
    const float* log_sum_exp;
    Stored* dq;
    float* delta;

    [[nodiscard]] i64 blocks() const;
    __device__ void operator()() const;
};

/// dk and dv of a block of key rows; query heads, and tiles of rows in each, in ascending order.
template <class Stored, int kDim>
struct KeyGradTile {
    static constexpr int kRows = kBlockRows<Stored, false>;
    static constexpr int kBlocks = kDim > 32 ? 2 : 3;
    /// Columns of dk and dv that a block sums: their sums are registers.
    static constexpr int kColumns = kDim < 128 ? kDim : 128;
    TileShape shape;
    const Stored *q, *k, *v, *d_out;
    const float *log_sum_exp, *delta;
    Stored *dk, *dv;

    [[nodiscard]] i64 blocks() const;
    __device__ void operator()() const;
};

/// Blocks of so many rows that no two sequences share, of all heads.
[[nodiscard]] constexpr i64 row_blocks(const TileShape& shape, i64 heads, i64 rows) {
    return shape.rows == 0 ? 0 : heads * (shape.rows / shape.seq_len) * ((shape.seq_len + rows - 1) / rows);
}
template <class Stored, int kDim>
i64 AttentionTile<Stored, kDim>::blocks() const {
    return row_blocks(shape, shape.heads, kRows);
}
template <class Stored, int kDim>
i64 QueryGradTile<Stored, kDim>::blocks() const {
    return row_blocks(shape, shape.heads, kRows);
}
template <class Stored, int kDim>
i64 KeyGradTile<Stored, kDim>::blocks() const {
    return row_blocks(shape, shape.kv_heads, kRows) * (kDim / kColumns);
}

}  // namespace moesaic::kernels
