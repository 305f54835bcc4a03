// Functors of the stable counting sort; runtime/backend.h says what it writes.
#pragma once

#include "runtime/cuda/kernels/elements.h"
#include "runtime/cuda/kernels/launch.h"

namespace moesaic::kernels {

/// Keys in chunks, groups in tiles of kBlockThreads; counts_of_chunk is [chunks, groups].
struct KeyChunks {
    const i32* key;
    i64 keys, keys_per_chunk, chunks, groups, tiles;  ///< keys_per_chunk is a multiple of kBlockThreads
    i32* counts_of_chunk;
};
/// How often each group comes in each chunk; number = chunk * tiles + tile.
struct KeyCountChunk {
    KeyChunks in;
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};
/// Where each key goes; number = chunk * tiles + tile.
struct KeyPlaceChunk {
    KeyChunks in;
    i32* order;
    i64* counts;
    i32* first_place;  ///< of each group; may be null
    __device__ void operator()(i64 number, const ThreadBlock& block) const;
};

}  // namespace moesaic::kernels
