// How kernels are started: a functor for every element, or for every row with a warp each. The definitions
// are instantiated in the .cu files; the back end's own sources need no CUDA compiler.
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
void each_tile(cudaStream_t stream, const Functor& f);

}  // namespace moesaic::kernels
