// Functors of the dense layers' operations; runtime/backend.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/tiles.h"

namespace moesaic::kernels {

/// A row of several groups of n columns counts as that many rows. `are_whole`: are_whole_quads of a row.
template <class Stored, bool are_whole>
struct NormRow {
    const Stored *x, *weight;
    Stored* y;
    Real<Stored>* inverse_rms;
    i32 n;
    double eps;
    template <class Threads>
    __device__ void operator()(i64 row, const Threads& threads) const;
};
template <class Stored, bool are_whole>
struct NormGradRow {
    const Stored *x, *weight, *dy;
    const Real<Stored>* inverse_rms;
    Stored* dx;
    i32 n;
    bool accumulate;
    template <class Threads>
    __device__ void operator()(i64 row, const Threads& threads) const;
};
/// Sums of kRowsOfChunk rows for kColumns columns: number = chunk * panels + panel. By where rows stand in
/// the chunk alone.
template <class Stored, bool are_whole>
struct NormWeightGradChunk {
    static constexpr i32 kColumns = 32, kRowsOfChunk = 256;
    const Stored *x, *dy;
    const Real<Stored>* inverse_rms;
    Real<Stored>* parts;  ///< [chunks, n]
    i64 rows;
    i32 n, panels;
    __device__ void operator()(i64 number, const Team& team) const;
};
/// Adds the chunks' sums in ascending order.
template <class T>
struct ChunkSumElement {
    const T* parts;  ///< [chunks, n]
    T* sum;
    i64 chunks, n;
    __device__ void operator()(i64 column) const;
};

/// A column is four pairs of a head: `quads_per_head` of them.
template <class Stored, bool are_whole>
struct RopeTile {
    static constexpr int kRows = 1;
    static constexpr bool kPanelsFirst = false;
    Stored* x;
    const Real<Stored>*cosine, *sine;
    i64 row_stride;
    i32 head_dim, quads_per_head, seq_len;
    bool inverse;
    __device__ void operator()(const Tile& tile) const;
};

// A stable sort of rows by what indexes them, by counting what comes before each. Then the rows of an index
// are added in ascending order: few by the threads of the first, more than kMostOfRow by teams that bring
// them to shared memory.
inline constexpr i64 kMostOfRow = 64;
struct IndexOrder {
    static constexpr i32 kRows = 64;  ///< of a team
    const i32* index;
    i64 rows;
    i32 *order, *sorted;  ///< rows in order, and their indices
    __device__ void operator()(i64 number, const Team& team) const;
};
template <class Stored, bool are_whole>
struct EmbeddingGradRow {
    const i32 *order, *sorted;
    const Stored* dy;
    Real<Stored>* d_table;
    i64 rows, width;
    template <class Threads>
    __device__ void operator()(i64 place, const Threads& threads) const;
};
/// number = place / kMostOfRow * panels + panel: every run of more than kMostOfRow places holds such a place.
template <class Stored, bool are_whole>
struct EmbeddingGradRun {
    static constexpr i32 kColumns = 32;
    const i32 *order, *sorted;
    const Stored* dy;
    Real<Stored>* d_table;
    i64 rows, width;
    i32 panels;
    __device__ void operator()(i64 number, const Team& team) const;
};

}  // namespace moesaic::kernels
