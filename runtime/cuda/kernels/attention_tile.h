// The forward of attention_tiles.h and what the backward shares, over units that multiply: `Units` say which
// rows and columns of a warp's part of the scores a lane has. For .cu files only.
#pragma once

#include <climits>

#include "runtime/cuda/kernels/attention_tiles.h"
#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

inline constexpr int kTileThreads = 32 * kTileWarps;

/// The units of the forward, of dq, and of dk and dv: Forward, QueryGrad, KeyGrad.
template <class Stored, int kDim>
struct UnitsOf;

/// A block's rows, in one sequence: [begin, begin + count) of it.
struct TileBlock {
    int head, sequence;  ///< the sequence's first row in the operands
    int begin, count, part;
};
/// Of causal attention the blocks with the most work come first: the last queries, the first keys.
template <int kBlockRows>
__device__ inline TileBlock tile_block(const TileShape& shape, int heads, unsigned parts, bool last_first) {
    constexpr unsigned kRows = kBlockRows;
    const auto length = static_cast<unsigned>(shape.seq_len), width = static_cast<unsigned>(heads);
    const unsigned sequences = static_cast<unsigned>(shape.rows) / length,
                   in_sequence = (length + kRows - 1) / kRows;
    const unsigned block = blockIdx.x / parts, part = blockIdx.x % parts;
    const unsigned row = block / width, turn = row / sequences;
    const unsigned begin = (last_first ? in_sequence - 1 - turn : turn) * kRows;
    return {static_cast<int>(block % width), static_cast<int>(row % sequences * length),
            static_cast<int>(begin), static_cast<int>(smaller(kRows, length - begin)),
            static_cast<int>(part)};
}

/// The same from shared memory, where it takes no registers from tile to tile.
template <int kBlockRows>
__device__ inline const TileBlock& shared_tile_block(TileBlock* room, const TileShape& shape, int heads,
                                                     unsigned parts, bool last_first) {
    if (threadIdx.x == 0) *room = tile_block<kBlockRows>(shape, heads, parts, last_first);
    __syncthreads();
    return *room;
}

/// The keys of row t of a sequence, [first, last) of its rows.
struct KeysOfRow {
    int first, last;
};
__device__ inline KeysOfRow key_range(const TileShape& shape, int sequence, int t) {
    if (!shape.causal) return {0, shape.seq_len};
    return {shape.first_key ? larger(shape.first_key[sequence + t] - sequence, 0) : 0, t + 1};
}
/// The first key that any of the rows reads.
__device__ inline int first_of(const TileShape& shape, int sequence, int begin, int count, const Warp& warp) {
    if (!shape.first_key) return 0;
    int first = INT_MAX;
    GPU_KEEP_LOOP
    for (int row = warp.lane; row < count; row += 32)
        first = smaller(first, key_range(shape, sequence, begin + row).first);
    GPU_UNROLL
    for (int distance = 16; distance > 0; distance /= 2)
        first = smaller(first, __shfl_xor_sync(Warp::kAll, first, distance));
    return first;
}

template <int kLanes>
__device__ inline float sum_of_row(float value) {
    GPU_UNROLL
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(Warp::kAll, value, distance);
    return value;
}
template <int kLanes>
__device__ inline float largest_of_row(float value) {
    GPU_UNROLL
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
        value = std::fmax(value, __shfl_xor_sync(Warp::kAll, value, distance));
    return value;
}

template <int kRows, int kColumns>
__device__ inline void clear(float (&values)[kRows][kColumns]) {
    GPU_UNROLL
    for (int i = 0; i < kRows; ++i) {
        GPU_UNROLL
        for (int j = 0; j < kColumns; ++j) values[i][j] = 0;
    }
}
template <int kRows, int kColumns>
__device__ inline void scale_row(float (&values)[kRows][kColumns], int i, float factor) {
    GPU_UNROLL
    for (int j = 0; j < kColumns; ++j) values[i][j] *= factor;
}

__device__ inline i64 place_of(const TileShape& shape, int stride, int row, int head) {
    return i64{row} * stride + head * shape.head_dim;
}

/// Starts to copy rows of a head into a tile, the whole block together; what is beyond the operand is 0.
template <class Units, class Stored>
__device__ inline void copy_tile(Stored* tile, const Stored* from, int stride, int rows, int head_dim) {
    constexpr int kElements = 16 / sizeof(Stored), kPieces = Units::kDim / kElements;
    constexpr int kRowsAtOnce = kTileThreads / kPieces;
    static_assert(kTileThreads % kPieces == 0 && Units::kTile % kRowsAtOnce == 0);
    const int thread = static_cast<int>(threadIdx.x), first = thread / kPieces;
    const int column = thread % kPieces * kElements, end = column < head_dim ? rows : 0;
    from += i64{first} * stride + column;
    tile += first * Units::kStride + column;
    GPU_KEEP_LOOP
    for (int row = 0; row < Units::kTile; row += kRowsAtOnce) {
        if (first + row < end) {
            gpu::copy_16_bytes(tile + row * Units::kStride, from);
        } else {
            gpu::clear_16_bytes(tile + row * Units::kStride);
        }
        from += i64{kRowsAtOnce} * stride;
    }
}
/// Tiles of both operands of the other side in shared memory.
template <class Units>
struct TilePair {
    using Stored = typename Units::Stored;
    static constexpr int kWords = 2 * Units::kBuffers * Units::kTileWords;
    Stored *first, *second;

    __device__ explicit TilePair(uint4* room)
        : first(reinterpret_cast<Stored*>(room)), second(first + Units::kBuffers * Units::kTileElements) {}
    __device__ void copy(int buffer, const Stored* one, const Stored* other, int stride, int rows,
                         int head_dim) const {
        copy_tile<Units>(first + buffer * Units::kTileElements, one, stride, rows, head_dim);
        copy_tile<Units>(second + buffer * Units::kTileElements, other, stride, rows, head_dim);
    }
};
/// The block's copies have arrived, and all have done what they did before.
__device__ inline void await_tiles() {
    gpu::wait_for_copies();
    __syncthreads();
}

/// compute(turn, buffer) for the turns in [0, count) that are not skipped, each after copy(turn, buffer).
/// With two buffers the next tiles are on their way meanwhile.
template <class Units, class Skip, class Copy, class Compute>
__device__ inline void go_through_tiles(int count, const Skip& skip, const Copy& copy,
                                        const Compute& compute) {
    const auto from = [&](int turn) {
        while (turn < count && skip(turn)) ++turn;
        return turn;
    };
    int turn = from(0), buffer = 0;
    if (Units::kBuffers == 2 && turn < count) copy(turn, buffer);
    GPU_KEEP_LOOP
    while (turn < count) {
        if constexpr (Units::kBuffers == 1) {
            __syncthreads();
            copy(turn, buffer);
        }
        await_tiles();
        const int next = from(turn + 1);
        if constexpr (Units::kBuffers == 2) {
            if (next < count) copy(next, 1 - buffer);
        }
        compute(turn, buffer);
        turn = next;
        if constexpr (Units::kBuffers == 2) buffer = 1 - buffer;
    }
}

/// Softmax of rows whose scores come in parts (Milakov and Gimelshein 2018).
template <class Units>
struct OnlineSoftmax {
    float origin[Units::kLaneRows];  ///< the largest score, in Units' unit
    float sum[Units::kLaneRows];     ///< of the lane's powers

    __device__ OnlineSoftmax() {
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) {
            origin[i] = minus_infinity<float>();
            sum[i] = 0;
        }
    }
    /// A NaN is no maximum, but a power. Scores to powers; `mix`, the sums of values so far, to the new
    /// origin.
    __device__ void take(typename Units::Scores& scores, typename Units::Sums& mix, float factor) {
        float rest[Units::kLaneRows];
        bool moves = false;
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) {
            float best = scores[i][0];
            GPU_UNROLL
            for (int j = 1; j < Units::kLaneColumns; ++j) best = std::fmax(best, scores[i][j]);
            best = std::fmax(origin[i], largest_of_row<Units::kLanesPerRow>(best) * factor);
            const float zero = best == minus_infinity<float>() ? 0.0F : best;  // no key yet
            rest[i] = Units::power(origin[i] - zero);
            moves = moves || rest[i] != 1.0F;
            origin[i] = best;
            float powers = 0;
            GPU_UNROLL
            for (int j = 0; j < Units::kLaneColumns; ++j) {
                scores[i][j] = Units::power(std::fma(scores[i][j], factor, -zero));
                powers += scores[i][j];
            }
            sum[i] = std::fma(sum[i], rest[i], powers);
        }
        if (!__any_sync(Warp::kAll, moves)) return;  // most parts change nothing
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) scale_row(mix, i, rest[i]);
    }
};

/// Whether none of a warp's queries reads keys from `key` on: they are all later.
template <class Units>
__device__ inline bool are_later(const Units& units, const TileShape& shape, const TileBlock& block,
                                 int key) {
    return shape.causal && key >= block.begin + units.first + Units::kRows;
}
/// Scores of keys from `key` on that rows do not read.
template <class Units>
__device__ inline void mask(typename Units::Scores& scores, const Units& units, const TileShape& shape,
                            const TileBlock& block, int key) {
    const int shared_end = shape.causal ? block.begin + units.first + 1 : shape.seq_len;
    if (!shape.first_key && key + Units::kChunk <= shared_end) return;
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        const int row = smaller(units.row(i), block.count - 1);
        const KeysOfRow keys = key_range(shape, block.sequence, block.begin + row);
        GPU_UNROLL
        for (int j = 0; j < Units::kLaneColumns; ++j) {
            const int column = key + units.column(j);
            if (column < keys.first || column >= keys.last) scores[i][j] = minus_infinity<float>();
        }
    }
}

/// The tiles of keys that a block of queries reads, and their values.
template <class Units>
struct KeyTiles {
    const TileShape& shape;
    const TileBlock& block;
    TilePair<Units> pair;
    int begin, count;

    __device__ KeyTiles(const TileShape& whole, const TileBlock& rows, uint4* room, int lane)
        : shape(whole), block(rows), pair(room) {
        const int end = shape.causal ? block.begin + block.count : shape.seq_len;
        begin = first_of(shape, block.sequence, block.begin, block.count, Warp{lane}) / Units::kTile *
                Units::kTile;
        count = (end - begin + Units::kTile - 1) / Units::kTile;
    }
    __device__ void copy(int turn, int buffer, const typename Units::Stored* k,
                         const typename Units::Stored* v) const {
        const int first = begin + turn * Units::kTile;
        const i64 from = place_of(shape, shape.key_stride, block.sequence + first, block.head / shape.group);
        pair.copy(buffer, k + from, v + from, shape.key_stride, shape.seq_len - first, shape.head_dim);
    }
};

template <class Stored, int kDim>
__device__ void AttentionTile<Stored, kDim>::operator()() const {
    using Units = typename UnitsOf<Stored, kDim>::Forward;
    GPU_SHARED(uint4, room, TilePair<Units>::kWords);
    GPU_SHARED(float4, scratch, Units::kScratchWords);
    GPU_SHARED(TileBlock, place, 1);
    const Units units(scratch);
    const TileBlock& block = shared_tile_block<kRows>(place, shape, shape.heads, 1, true);
    const i64 first_row = place_of(shape, shape.query_stride, block.sequence + block.begin, block.head);
    const typename Units::Rows queries(units, q + first_row, shape.query_stride, block.count, shape.head_dim);
    const KeyTiles<Units> tiles(shape, block, room, units.lane);
    OnlineSoftmax<Units> softmax;
    typename Units::Sums mix;
    clear(mix);
    const auto compute = [&](int turn, int buffer) {
        GPU_KEEP_LOOP
        for (int chunk = 0; chunk < Units::kTile; chunk += Units::kChunk) {
            const int row = buffer * Units::kTile + chunk, key = tiles.begin + turn * Units::kTile + chunk;
            if (are_later(units, shape, block, key)) break;
            typename Units::Scores scores;
            clear(scores);
            units.add_scores(scores, queries, tiles.pair.first + row * Units::kStride);
            mask(scores, units, shape, block, key);
            softmax.take(scores, mix, shape.scale * Units::kPerUnit);
            units.add_products(mix, scores, tiles.pair.second + row * Units::kStride);
        }
    };
    go_through_tiles<Units>(
        tiles.count, [](int) { return false; }, [&](int turn, int buffer) { tiles.copy(turn, buffer, k, v); },
        compute);
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        const float sum = sum_of_row<Units::kLanesPerRow>(softmax.sum[i]);
        scale_row(mix, i, 1.0F / sum);
        const int row = units.row(i), t = block.sequence + block.begin + row;
        if (row >= block.count) continue;
        units.store(out + place_of(shape, shape.query_stride, t, block.head), mix, i, shape.head_dim);
        if (units.lane % Units::kLanesPerRow == 0)
            log_sum_exp[i64{block.head} * shape.rows + t] =
                softmax.origin[i] / Units::kPerUnit + std::log(sum);
    }
}

template <class Functor>
__global__ void __launch_bounds__(kTileThreads, Functor::kBlocks) head_block_kernel(Functor f) {
    f();
}

template <class Functor>
void each_head_block(cudaStream_t stream, const Functor& f) {
    const i64 blocks = f.blocks();
    if (blocks == 0) return;
    const Functor functor = f;
    GPU_LAUNCH((head_block_kernel<Functor>), static_cast<unsigned>(blocks), kTileThreads, 0, stream, functor);
}

}  // namespace moesaic::kernels

/// For every kDim that a .cu file instantiates.
#define MOESAIC_TILES(Stored, kDim)                                                                    \
    template void moesaic::kernels::each_head_block(cudaStream_t, const AttentionTile<Stored, kDim>&); \
    template void moesaic::kernels::each_head_block(cudaStream_t, const QueryGradTile<Stored, kDim>&); \
    template void moesaic::kernels::each_head_block(cudaStream_t, const KeyGradTile<Stored, kDim>&)
