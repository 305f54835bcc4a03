// The backward of attention_tile.h. Scores are computed again, in a kernel for dq and in one for dk and dv,
// so that nobody waits for sums of others. For .cu files only.
#pragma once

#include "runtime/cuda/kernels/attention_tile.h"

namespace moesaic::kernels {

template <class Stored, int kDim>
__device__ void QueryGradTile<Stored, kDim>::operator()() const {
    using Units = typename UnitsOf<Stored, kDim>::QueryGrad;
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
    const typename Units::Rows queries(units, q + first_row, shape.query_stride, block.count, shape.head_dim),
        d_outs(units, d_out + first_row, shape.query_stride, block.count, shape.head_dim);
    KeyRange keys[Units::kLaneRows];
    set_key_ranges(keys, units, shape, block);
    float sums[Units::kLaneRows], deltas[Units::kLaneRows];
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        const i64 row = i64{block.head} * shape.rows + block.sequence + block.begin +
                        smaller(units.row(i), block.count - 1);
        sums[i] = log_sum_exp[row] * Units::kPerUnit;
        deltas[i] = delta[row];
    }
    const int end = shape.causal ? block.begin + block.count : shape.seq_len;
    int begin = first_of(shape, block.sequence, block.begin, block.count, Warp{units.lane});
    begin = begin / Units::kTile * Units::kTile;
    const float factor = shape.scale * Units::kPerUnit;
    typename Units::Sums grad;
    clear(grad);
    for (int first = begin; first < end; first += Units::kTile) {
        if (first > begin) __syncthreads();
        const i64 from = place_of(shape, shape.key_stride, block.sequence + first, key_head);
        copy_tile<Units>(key_tile, k + from, shape.key_stride, shape.seq_len - first, shape.head_dim);
        copy_tile<Units>(value_tile, v + from, shape.key_stride, shape.seq_len - first, shape.head_dim);
        await_tiles();
        GPU_KEEP_LOOP
        for (int chunk = 0; chunk < Units::kTile; chunk += Units::kChunk) {
            typename Units::Scores scores, d_scores;
            clear(scores);
            clear(d_scores);
            units.add_scores(scores, queries, key_tile + chunk * Units::kStride);
            units.add_scores(d_scores, d_outs, value_tile + chunk * Units::kStride);
            mask(scores, units, first + chunk, keys);
            GPU_UNROLL
            for (int i = 0; i < Units::kLaneRows; ++i) {
                GPU_UNROLL
                for (int j = 0; j < Units::kLaneColumns; ++j)
                    scores[i][j] =
                        score_grad<Units>(scores[i][j], d_scores[i][j], factor, sums[i], deltas[i]);
            }
            units.add_products(grad, scores, key_tile + chunk * Units::kStride);
        }
    }
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        scale_row(grad, i, shape.scale);
        if (units.row(i) < block.count)
            units.store(dq + place_of(shape, shape.query_stride, block.sequence + block.begin + units.row(i),
                                      block.head),
                        grad, i, shape.head_dim);
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

template <class Stored, int kDim>
__device__ void KeyGradTile<Stored, kDim>::operator()() const {
    using Units = typename UnitsOf<Stored, kDim>::KeyGrad;
    GPU_SHARED(uint4, query_room, Units::kTileWords);
    GPU_SHARED(uint4, d_out_room, Units::kTileWords);
    GPU_SHARED(float4, scratch, Units::kScratchWords);
    GPU_SHARED(QueryFacts, facts, Units::kTile);
    GPU_SHARED(int, first_keys, Units::kTile);
    auto* const query_tile = reinterpret_cast<Stored*>(query_room);
    auto* const d_out_tile = reinterpret_cast<Stored*>(d_out_room);
    const Units units(scratch);
    GPU_SHARED(RowBlock, place, 1);
    const RowBlock& block =
        shared_row_block<Stored>(place, shape, shape.kv_heads, kDim / kColumns, !shape.causal);
    const i64 first_row = place_of(shape, shape.key_stride, block.sequence + block.begin, block.head);
    const typename Units::Rows keys(units, k + first_row, shape.key_stride, block.count, shape.head_dim),
        values(units, v + first_row, shape.key_stride, block.count, shape.head_dim);
    const float factor = shape.scale * Units::kPerUnit;
    const int first_column = block.part * kColumns;
    typename Units::Sums key_grad, value_grad;
    clear(key_grad);
    clear(value_grad);
    for (int head = block.head * shape.group; head < (block.head + 1) * shape.group; ++head) {
        int first = shape.causal ? block.begin / Units::kTile * Units::kTile : 0;
        for (; first < shape.seq_len; first += Units::kTile) {
            const int count = smaller(Units::kTile, shape.seq_len - first);
            if (first_of(shape, block.sequence, first, count, Warp{units.lane}) >= block.begin + block.count)
                continue;
            const i64 from = place_of(shape, shape.query_stride, block.sequence + first, head);
            __syncthreads();
            copy_tile<Units>(query_tile, q + from, shape.query_stride, count, shape.head_dim);
            copy_tile<Units>(d_out_tile, d_out + from, shape.query_stride, count, shape.head_dim);
            set_facts<Units>(facts, first_keys, shape, head, block.sequence, first, log_sum_exp, delta);
            await_tiles();
            GPU_KEEP_LOOP
            for (int chunk = 0; chunk < Units::kTile; chunk += Units::kChunk) {
                const Stored* const query_chunk = query_tile + chunk * Units::kStride;
                const Stored* const d_out_chunk = d_out_tile + chunk * Units::kStride;
                typename Units::Scores scores, d_scores;
                clear(scores);
                clear(d_scores);
                units.add_scores(scores, keys, query_chunk);
                units.add_scores(d_scores, values, d_out_chunk);
                if (shape.causal && (shape.first_key || first + chunk < block.begin + block.count))
                    mask_keys(scores, units, block.begin, first + chunk, first_keys + chunk);
                differentiate(scores, d_scores, units, facts + chunk, factor);
                units.add_products(value_grad, scores, d_out_chunk + first_column);
                units.add_products(key_grad, d_scores, query_chunk + first_column);
            }
        }
    }
    GPU_UNROLL
    for (int i = 0; i < Units::kLaneRows; ++i) {
        scale_row(key_grad, i, shape.scale);
        if (units.row(i) >= block.count) continue;
        const i64 row =
            place_of(shape, shape.key_stride, block.sequence + block.begin + units.row(i), block.head) +
            first_column;
        units.store(dk + row, key_grad, i, shape.head_dim - first_column);
        units.store(dv + row, value_grad, i, shape.head_dim - first_column);
    }
}

}  // namespace moesaic::kernels
