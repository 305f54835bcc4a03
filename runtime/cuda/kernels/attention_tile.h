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
struct RowBlock {
    int head, sequence;  ///< the sequence's first row in the operands
    int begin, count, part;
};
/// Of causal attention the blocks with the most work come first: the last queries, the first keys.
template <class Stored>
__device__ inline RowBlock row_block(const TileShape& shape, int heads, unsigned parts, bool last_first) {
    constexpr unsigned kRows = kBlockRows<Stored>;
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
template <class Stored>
__device__ inline const RowBlock& shared_row_block(RowBlock* room, const TileShape& shape, int heads,
                                                   unsigned parts, bool last_first) {
    if (threadIdx.x == 0) *room = row_block<Stored>(shape, heads, parts, last_first);
    __syncthreads();
    return *room;
}

/// The keys of row t of a sequence, [first, last) of its rows.
struct KeyRange {
    int first, last;
};
__device__ inline KeyRange key_range(const TileShape& shape, int sequence, int t) {
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
        value = larger(value, __shfl_xor_sync(Warp::kAll, value, distance));
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
/// The block's copies have arrived, and all have done what they did before.
__device__ inline void await_tiles() {
    gpu::wait_for_copies();
    __syncthreads();
}

/// Softmax of rows whose scores come in parts (Milakov and Gimelshein 2018): what it has seen, in
/// Units::kBase's unit.
template <class Units>
struct OnlineSoftmax {
    float maximum[Units::kLaneRows], sum[Units::kLaneRows];

    __device__ OnlineSoftmax() {
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) {
            maximum[i] = minus_infinity<float>();
            sum[i] = 0;
        }
    }
    /// Scores to powers; `mix`, the sums of values so far, to the new maximum.
    __device__ void take(typename Units::Scores& scores, typename Units::Sums& mix, float factor) {
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) {
            float best = minus_infinity<float>();
            GPU_UNROLL
            for (int j = 0; j < Units::kLaneColumns; ++j) {
                scores[i][j] *= factor;
                best = larger(best, scores[i][j]);
            }
            const float before = maximum[i];
            maximum[i] = larger(before, largest_of_row<Units::kLanesPerRow>(best));
            const float origin = maximum[i] == minus_infinity<float>() ? 0.0F : maximum[i];  // no key yet
            const float rest = Units::power(before - origin);
            float powers = 0;
            GPU_UNROLL
            for (int j = 0; j < Units::kLaneColumns; ++j) {
                scores[i][j] = Units::power(scores[i][j] - origin);
                powers += scores[i][j];
            }
            sum[i] = std::fma(sum[i], rest, powers);  // of the lane's columns
            scale_row(mix, i, rest);
        }
    }
};

template <class Units>
__device__ inline void mask(typename Units::Scores& scores, const Units& units, int first_column,
                            const KeyRange (&keys)[Units::kLaneRows]) {
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        if (first_column >= keys[i].first && first_column + Units::kChunk <= keys[i].last) continue;
        GPU_UNROLL
        for (int j = 0; j < Units::kLaneColumns; ++j) {
            const int column = first_column + units.column(j);
            if (column < keys[i].first || column >= keys[i].last) scores[i][j] = minus_infinity<float>();
        }
    }
}

/// The keys of a lane's query rows; rows beyond the block's have none.
template <class Units>
__device__ inline void set_key_ranges(KeyRange (&keys)[Units::kLaneRows], const Units& units,
                                      const TileShape& shape, const RowBlock& block) {
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        const int row = units.row(i);
        keys[i] = row < block.count ? key_range(shape, block.sequence, block.begin + row) : KeyRange{0, 0};
    }
}

template <class Stored, int kDim>
__device__ void AttentionTile<Stored, kDim>::operator()() const {
    using Units = typename UnitsOf<Stored, kDim>::Forward;
    GPU_SHARED(uint4, key_room, Units::kTileWords);
    GPU_SHARED(uint4, value_room, Units::kTileWords);
    GPU_SHARED(float4, scratch, Units::kScratchWords);
    auto* const key_tile = reinterpret_cast<Stored*>(key_room);
    auto* const value_tile = reinterpret_cast<Stored*>(value_room);
    const Units units(scratch);
    GPU_SHARED(RowBlock, place, 1);
    const RowBlock& block = shared_row_block<Stored>(place, shape, shape.heads, 1, true);
    const int key_head = block.head / shape.group;
    const i64 first_row = place_of(shape, shape.query_stride, block.sequence + block.begin, block.head);
    const typename Units::Rows queries(units, q + first_row, shape.query_stride, block.count, shape.head_dim);
    KeyRange keys[Units::kLaneRows];
    set_key_ranges(keys, units, shape, block);
    const int end = shape.causal ? block.begin + block.count : shape.seq_len;
    int begin = first_of(shape, block.sequence, block.begin, block.count, Warp{units.lane});
    begin = begin / Units::kTile * Units::kTile;
    const auto copy = [&](Stored* tile, const Stored* from, int first) {
        copy_tile<Units>(tile, from + place_of(shape, shape.key_stride, block.sequence + first, key_head),
                         shape.key_stride, shape.seq_len - first, shape.head_dim);
    };
    OnlineSoftmax<Units> softmax;
    typename Units::Sums mix;
    clear(mix);
    copy(key_tile, k, begin);
    for (int first = begin; first < end; first += Units::kTile) {
        await_tiles();
        copy(value_tile, v, first);
        typename Units::Scores scores;
        clear(scores);
        units.add_scores(scores, queries, key_tile);
        await_tiles();
        if (first + Units::kTile < end) copy(key_tile, k, first + Units::kTile);
        mask(scores, units, first, keys);
        softmax.take(scores, mix, shape.scale * Units::kPerUnit);
        units.add_products(mix, scores, value_tile);
    }
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        const float sum = sum_of_row<Units::kLanesPerRow>(softmax.sum[i]);
        scale_row(mix, i, 1.0F / sum);
        const int row = units.row(i);
        if (row >= block.count) continue;
        units.store(out + place_of(shape, shape.query_stride, block.sequence + block.begin + row, block.head),
                    mix, i, shape.head_dim);
        if (units.lane % Units::kLanesPerRow == 0)
            log_sum_exp[i64{block.head} * shape.rows + block.sequence + block.begin + row] =
                softmax.maximum[i] / Units::kPerUnit + std::log(sum);
    }
}

/// Scores and products of the same places to the gradients of scores, but for shape.scale.
template <class Units>
__device__ inline float score_grad(float score, float d_probability, float factor, float log_sum_exp,
                                   float delta) {
    return Units::power(std::fma(score, factor, -log_sum_exp)) * (d_probability - delta);
}

template <class Functor>
__global__ void __launch_bounds__(kTileThreads, Functor::kBlocks) tile_kernel(Functor f) {
    f();
}

template <class Functor>
void each_tile(cudaStream_t stream, const Functor& f) {
    const i64 blocks = f.blocks();
    if (blocks == 0) return;
    const Functor functor = f;
    GPU_LAUNCH((tile_kernel<Functor>), static_cast<unsigned>(blocks), kTileThreads, 0, stream, functor);
}

}  // namespace moesaic::kernels

/// For every kDim that a .cu file instantiates.
#define MOESAIC_TILES(Stored, kDim)                                                              \
    template void moesaic::kernels::each_tile(cudaStream_t, const AttentionTile<Stored, kDim>&); \
    template void moesaic::kernels::each_tile(cudaStream_t, const QueryGradTile<Stored, kDim>&); \
    template void moesaic::kernels::each_tile(cudaStream_t, const KeyGradTile<Stored, kDim>&)
