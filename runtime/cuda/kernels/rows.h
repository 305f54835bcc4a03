// Functors of moving and weighing rows; runtime/backend.h says what they compute.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/tiles.h"

namespace moesaic::kernels {

/// Pieces of rows of any type, as large as widths and addresses allow.
template <class Piece>
struct GatherTile {
    static constexpr int kRows = 4;
    static constexpr bool kPanelsFirst = true;
    const Piece* in;
    const i32 *index, *place;  ///< place may be null
    Piece* out;
    i64 width;  ///< in pieces
    __device__ void operator()(const Tile& tile) const;
};
template <class Stored, bool are_whole>
struct GatherAddTile {
    static constexpr int kRows = 2;
    static constexpr bool kPanelsFirst = true;
    const Stored* in;
    const i32* index;
    Stored* out;
    i64 width;
    __device__ void operator()(const Tile& tile) const;
};

template <class Stored, bool are_whole>
struct CombineTile {
    static constexpr int kRows = 1;
    static constexpr bool kPanelsFirst = false;
    const Stored* rows;
    const i32* slot;
    const Real<Stored>* weight;  ///< may be null
    Stored* y;
    i32 choices;
    i64 width;
    bool accumulate;
    __device__ void operator()(const Tile& tile) const;
};
/// A row for each choice.
template <class Stored, bool are_whole>
struct CombineGradRow {
    const Stored *rows, *dy;
    const i32* slot;
    const Real<Stored>* weight;  ///< may be null
    Stored* d_rows;
    Real<Stored>* d_weight;  ///< may be null
    i64 choices, width;
    template <class Threads>
    __device__ void operator()(i64 choice, const Threads& threads) const;
};

template <class Stored, bool are_whole>
struct GateRow {
    const Real<Stored>* logit;
    const Stored* rows;
    Stored* y;
    i64 width;
    template <class Threads>
    __device__ void operator()(i64 row, const Threads& threads) const;
};
template <class Stored, bool are_whole>
struct GateGradRow {
    const Real<Stored>* logit;
    const Stored *rows, *dy;
    Stored* d_rows;
    Real<Stored>* d_logit;
    i64 width;
    template <class Threads>
    __device__ void operator()(i64 row, const Threads& threads) const;
};

}  // namespace moesaic::kernels
