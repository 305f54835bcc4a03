// How kernels are started: a functor for every element, for every row with a warp each, or for every block of
// threads. The definitions are instantiated in the .cu files; the back end's own sources need no CUDA
// compiler.
#pragma once

#include <cuda_runtime.h>

#include "runtime/base/types.h"

namespace moesaic::kernels {

/// Calls f(i) for every i in [0, count), in any order and at once.
template <class Functor>
void each(cudaStream_t stream, i64 count, const Functor& f);

struct Warp;
/// Calls f(row, warp) for every row in [0, rows) by the 32 lanes of a warp.
template <class Functor>
void each_row(cudaStream_t stream, i64 rows, const Functor& f);

/// Calls f() by f.blocks() blocks of threads that share a tile of rows (attention_tiles.h).
template <class Functor>
void each_head_block(cudaStream_t stream, const Functor& f);

struct ThreadBlock;
inline constexpr int kBlockThreads = 256;
inline constexpr int kColumnsOfBlock = 8;  ///< that a block adds up (columns.h): f64 of a sector
/// Calls f(number, block) for every number in [0, blocks) by kBlockThreads threads that may meet.
template <class Functor>
void each_block(cudaStream_t stream, i64 blocks, const Functor& f);

}  // namespace moesaic::kernels
