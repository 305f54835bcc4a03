// The backward of attention_tile.h. Scores are computed again, in a kernel for dq and in one for dk and dv,
// so that nobody waits for sums of others. For .cu files only.
#pragma once

#include "runtime/cuda/kernels/attention_tile.h"

namespace moesaic::kernels {

/// Of a lane's query rows: log_sum_exp in Units' unit, and delta = <d_out, out>.
template <class Units>
struct RowFacts {
    float log_sum_exp[Units::kLaneRows], delta[Units::kLaneRows];

    /// Writes deltas.
    __device__ RowFacts(const Units& units, const TileShape& shape, const TileBlock& block,
                        const typename Units::Rows& d_outs, const typename Units::Rows& outs,
                        const float* sums, float* deltas) {
        Units::dot(d_outs, outs, units.lane, delta);
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) {
            delta[i] = sum_of_row<Units::kLanesPerRow>(delta[i]);
            const i64 row = i64{block.head} * shape.rows + block.sequence + block.begin +
                            smaller(units.row(i), block.count - 1);
            log_sum_exp[i] = sums[row] * Units::kPerUnit;
            if (units.lane % Units::kLanesPerRow == 0 && units.row(i) < block.count) deltas[row] = delta[i];
        }
    }
    /// Scores to their gradients, but for shape.scale.
    __device__ void differentiate(typename Units::Scores& scores,
                                  const typename Units::Scores& d_probabilities, float factor) const {
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) {
            GPU_UNROLL
            for (int j = 0; j < Units::kLaneColumns; ++j)
                scores[i][j] = Units::power(std::fma(scores[i][j], factor, -log_sum_exp[i])) *
                               (d_probabilities[i][j] - delta[i]);
        }
    }
};

template <class Stored, int kDim>
__device__ void QueryGradTile<Stored, kDim>::operator()() const {
    using Units = typename UnitsOf<Stored, kDim>::QueryGrad;
    GPU_SHARED(uint4, room, TilePair<Units>::kWords);
    GPU_SHARED(float4, scratch, Units::kScratchWords);
    GPU_SHARED(TileBlock, place, 1);
    const Units units(scratch);
    const TileBlock& block = shared_tile_block<kRows>(place, shape, shape.heads, 1, true);
    const i64 first_row = place_of(shape, shape.query_stride, block.sequence + block.begin, block.head);
    const typename Units::Rows queries(units, q + first_row, shape.query_stride, block.count, shape.head_dim),
        d_outs(units, d_out + first_row, shape.query_stride, block.count, shape.head_dim);
    const RowFacts<Units> facts(
        units, shape, block, d_outs,
        typename Units::Rows(units, out + first_row, shape.query_stride, block.count, shape.head_dim),
        log_sum_exp, delta);
    const KeyTiles<Units> tiles(shape, block, room, units.lane);
    typename Units::Sums grad;
    clear(grad);
    const auto compute = [&](int turn, int buffer) {
        GPU_KEEP_LOOP
        for (int chunk = 0; chunk < Units::kTile; chunk += Units::kChunk) {
            const int row = (buffer * Units::kTile + chunk) * Units::kStride;
            const int key = tiles.begin + turn * Units::kTile + chunk;
            if (are_later(units, shape, block, key)) break;
            typename Units::Scores scores, d_probabilities;
            clear(scores);
            clear(d_probabilities);
            units.add_scores(scores, queries, tiles.pair.first + row);
            units.add_scores(d_probabilities, d_outs, tiles.pair.second + row);
            mask(scores, units, shape, block, key);
            facts.differentiate(scores, d_probabilities, shape.scale * Units::kPerUnit);
            units.add_products(grad, scores, tiles.pair.first + row);
        }
    };
    go_through_tiles<Units>(
        tiles.count, [](int) { return false; }, [&](int turn, int buffer) { tiles.copy(turn, buffer, k, v); },
        compute);
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        scale_row(grad, i, shape.scale);
        const int row = units.row(i), t = block.sequence + block.begin + row;
        if (row < block.count)
            units.store(dq + place_of(shape, shape.query_stride, t, block.head), grad, i, shape.head_dim);
    }
}

/// What a query row brings to the gradients of keys besides its columns.
struct QueryFacts {
    float log_sum_exp, delta;  ///< the first in Units' unit
};

/// Of a tile of query rows. Those beyond the sequence have zeros for columns, and add nothing.
template <class Units>
__device__ inline void set_facts(QueryFacts* facts, int* first_key, const TileShape& shape, int head,
                                 int sequence, int first, const float* log_sum_exp, const float* delta) {
    const int thread = static_cast<int>(threadIdx.x), t = first + thread;
    if (thread >= Units::kTile) return;
    const i64 row = i64{head} * shape.rows + sequence + t;
    const bool is_row = t < shape.seq_len;
    facts[thread] = is_row ? QueryFacts{log_sum_exp[row] * Units::kPerUnit, delta[row]} : QueryFacts{0, 0};
    first_key[thread] = is_row ? key_range(shape, sequence, t).first : 0;
}

/// Of causal attention: keys in rows, queries from `query` on in columns.
template <class Units>
__device__ inline void mask_keys(typename Units::Scores& scores, const Units& units, int key, int query,
                                 const int* first_key) {
    GPU_UNROLL
    for (int j = 0; j < Units::kLaneColumns; ++j) {
        const int first = first_key[units.column(j)], last = query + units.column(j);
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) {
            const int mine = key + units.row(i);
            if (mine < first || mine > last) scores[i][j] = minus_infinity<float>();
        }
    }
}

/// Scores to probabilities, d_scores from gradients of probabilities to those of scores but for shape.scale.
template <class Units>
__device__ inline void differentiate(typename Units::Scores& scores, typename Units::Scores& d_scores,
                                     const Units& units, const QueryFacts* facts, float factor) {
    GPU_UNROLL
    for (int j = 0; j < Units::kLaneColumns; ++j) {
        const QueryFacts query = facts[units.column(j)];
        GPU_UNROLL
        for (int i = 0; i < Units::kLaneRows; ++i) {
            scores[i][j] = Units::power(std::fma(scores[i][j], factor, -query.log_sum_exp));
            d_scores[i][j] = scores[i][j] * (d_scores[i][j] - query.delta);
        }
    }
}

/// The tiles of queries that read a block of keys, and their gradients: a turn is a tile of a head; those of
/// a head are together, in ascending order.
template <class Units>
struct QueryTiles {
    const TileShape& shape;
    const TileBlock& block;
    TilePair<Units> pair;
    QueryFacts* facts;
    int* first_keys;
    int lane;

    __device__ int begin() const { return shape.causal ? block.begin / Units::kTile * Units::kTile : 0; }
    __device__ int in_head() const { return (shape.seq_len - begin() + Units::kTile - 1) / Units::kTile; }
    __device__ int first(int turn) const { return begin() + turn % in_head() * Units::kTile; }
    /// Whether all of its rows are of later documents.
    __device__ bool skip(int turn) const {
        if (!shape.first_key) return false;
        const int count = smaller(Units::kTile, shape.seq_len - first(turn));
        return first_of(shape, block.sequence, first(turn), count, Warp{lane}) >= block.begin + block.count;
    }
    template <class Operands>
    __device__ void copy(int turn, int buffer, const Operands& of) const {
        const int begin = first(turn), head = block.head * shape.group + turn / in_head();
        const i64 from = place_of(shape, shape.query_stride, block.sequence + begin, head);
        pair.copy(buffer, of.q + from, of.d_out + from, shape.query_stride, shape.seq_len - begin,
                  shape.head_dim);
        set_facts<Units>(facts + buffer * Units::kTile, first_keys + buffer * Units::kTile, shape, head,
                         block.sequence, begin, of.log_sum_exp, of.delta);
    }
};

template <class Stored, int kDim>
__device__ void KeyGradTile<Stored, kDim>::operator()() const {
    using Units = typename UnitsOf<Stored, kDim>::KeyGrad;
    GPU_SHARED(uint4, room, TilePair<Units>::kWords);
    GPU_SHARED(float4, scratch, Units::kScratchWords);
    GPU_SHARED(QueryFacts, facts, Units::kBuffers * Units::kTile);
    GPU_SHARED(int, first_keys, Units::kBuffers* Units::kTile);
    GPU_SHARED(TileBlock, place, 1);
    const Units units(scratch);
    const TileBlock& block =
        shared_tile_block<kRows>(place, shape, shape.kv_heads, kDim / kColumns, !shape.causal);
    const i64 first_row = place_of(shape, shape.key_stride, block.sequence + block.begin, block.head);
    const typename Units::Rows keys(units, k + first_row, shape.key_stride, block.count, shape.head_dim),
        values(units, v + first_row, shape.key_stride, block.count, shape.head_dim);
    const QueryTiles<Units> tiles{shape, block, TilePair<Units>(room), facts, first_keys, units.lane};
    typename Units::Sums key_grad, value_grad;
    clear(key_grad);
    clear(value_grad);
    const auto compute = [&](int turn, int buffer) {
        const int first = tiles.first(turn);
        GPU_KEEP_LOOP
        for (int chunk = 0; chunk < Units::kTile; chunk += Units::kChunk) {
            const int row = buffer * Units::kTile + chunk, query = first + chunk;
            if (shape.causal && query + Units::kChunk <= block.begin + units.first) continue;  // all earlier
            const Stored *const query_chunk = tiles.pair.first + row * Units::kStride, *const d_out_chunk =
                                                                                           tiles.pair.second +
                                                                                           row *
                                                                                               Units::kStride;
            typename Units::Scores scores, d_scores;
            clear(scores);
            clear(d_scores);
            units.add_scores(scores, keys, query_chunk);
            units.add_scores(d_scores, values, d_out_chunk);
            if (shape.causal && (shape.first_key || query < block.begin + units.first + Units::kRows))
                mask_keys(scores, units, block.begin, query, first_keys + row);
            differentiate(scores, d_scores, units, facts + row, shape.scale * Units::kPerUnit);
            units.add_products(value_grad, scores, d_out_chunk + block.part * kColumns);
            units.add_products(key_grad, d_scores, query_chunk + block.part * kColumns);
        }
    };
    go_through_tiles<Units>(
        shape.group * tiles.in_head(), [&](int turn) { return tiles.skip(turn); },
        [&](int turn, int buffer) { tiles.copy(turn, buffer, *this); }, compute);
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        scale_row(key_grad, i, shape.scale);
        if (units.row(i) >= block.count) continue;
        const int u = block.sequence + block.begin + units.row(i), column = block.part * kColumns;
        const i64 row = place_of(shape, shape.key_stride, u, block.head) + column;
        units.store(dk + row, key_grad, i, shape.head_dim - column);
        units.store(dv + row, value_grad, i, shape.head_dim - column);
    }
}

}  // namespace moesaic::kernels
