#include "runtime/cuda/kernels/rows.h"

#include "runtime/cuda/kernels/tile_kernels.h"

namespace moesaic::kernels {

template <class Piece>
__device__ void GatherTile<Piece>::operator()(const Tile& tile) const {
    i64 from[kRows], to[kRows];
    GPU_UNROLL for (int i = 0; i < kRows; ++i) {
        const i64 row = tile.row + i * tile.step;
        from[i] = row < tile.rows ? index[row] : -1;
        to[i] = place && row < tile.rows ? place[row] : row;
    }
    Piece moved[kRows] = {};
    GPU_UNROLL for (int i = 0; i < kRows; ++i) moved[i] =
        from[i] < 0 ? Piece{} : in[from[i] * width + tile.column];
    GPU_UNROLL for (int i = 0; i < kRows; ++i) if (tile.row + i * tile.step < tile.rows)
        out[to[i] * width + tile.column] = moved[i];
}

template <class Stored, bool are_whole>
__device__ void GatherAddTile<Stored, are_whole>::operator()(const Tile& tile) const {
    const i64 column = tile.column * kQuad, room = width - column;
    i64 from[kRows];
    GPU_UNROLL for (int i = 0; i < kRows; ++i) {
        const i64 row = tile.row + i * tile.step;
        from[i] = row < tile.rows ? index[row] : -1;
    }
    Quad<Stored> sums[kRows] = {}, addends[kRows] = {};
    GPU_UNROLL for (int i = 0; i < kRows; ++i) {
        if (from[i] < 0) continue;
        addends[i] = load_quad<are_whole>(in + from[i] * width + column, room);
        sums[i] = load_quad<are_whole>(out + (tile.row + i * tile.step) * width + column, room);
    }
    GPU_UNROLL for (int i = 0; i < kRows; ++i) {
        if (from[i] < 0) continue;
        set_each(sums[i], [&](int k) { return sums[i][k] + addends[i][k]; });
        store_quad<are_whole>(out + (tile.row + i * tile.step) * width + column, room, sums[i]);
    }
}

template <class Stored, bool are_whole>
__device__ void CombineTile<Stored, are_whole>::operator()(const Tile& tile) const {
    using T = Real<Stored>;
    constexpr int kBatch = sizeof(Stored) == 8 ? 2 : 4;  // rows on their way at once
    const i64 column = tile.column * kQuad, room = width - column;
    Stored* const to = y + tile.row * width + column;
    T sums[kQuad] = {};
    if (accumulate) {
        const Quad<Stored> before = load_quad<are_whole>(to, room);
        for (int k = 0; k < kQuad; ++k) sums[k] = before[k];
    }
    const i64 first = tile.row * choices;
    for (i32 begin = 0; begin < choices; begin += kBatch) {
        i64 from[kBatch];
        T factors[kBatch];
        Quad<Stored> batch[kBatch] = {};
        GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
            const bool is_there = begin + i < choices;
            from[i] = is_there ? slot[first + begin + i] : -1;
            factors[i] = weight && is_there ? weight[first + begin + i] : T{1};
        }
        GPU_UNROLL for (int i = 0; i < kBatch; ++i) if (from[i] >= 0) batch[i] =
            load_quad<are_whole>(rows + from[i] * width + column, room);
        GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
            if (from[i] < 0) continue;
            for (int k = 0; k < kQuad; ++k) sums[k] = std::fma(factors[i], batch[i][k], sums[k]);
        }
    }
    Quad<Stored> sum = zero_quad<Stored>();
    set_each(sum, [&](int k) { return sums[k]; });
    store_quad<are_whole>(to, room, sum);
}

/// Goes through a row of `width` columns: to[.] = factor * dy[.], where `to` may be `other`'s own memory;
/// returns the thread's part of <dy, other>, which is 0 without another row. kBatch quads are on their way at
/// once.
template <bool are_whole, int kBatch, class Stored, class Threads>
__device__ inline Real<Stored> scale_and_multiply(const Stored* dy, const Stored* other, Stored* to,
                                                  Real<Stored> factor, i64 width, const Threads& threads) {
    const i64 step = Threads::kSize * kQuad;
    Real<Stored> dot = 0;
    for (i64 begin = threads.lane * kQuad; begin < width; begin += kBatch * step) {
        Quad<Stored> d[kBatch] = {}, others[kBatch] = {};
        GPU_UNROLL for (int turn = 0; turn < kBatch; ++turn) {
            const i64 column = begin + turn * step;
            d[turn] = others[turn] = zero_quad<Stored>();
            if (column >= width) continue;
            d[turn] = load_quad<are_whole>(dy + column, width - column);
            if (other) others[turn] = load_quad<are_whole>(other + column, width - column);
        }
        GPU_UNROLL for (int turn = 0; turn < kBatch; ++turn) {
            const i64 column = begin + turn * step;
            for (int k = 0; k < kQuad; ++k) dot = std::fma(d[turn][k], others[turn][k], dot);
            set_each(d[turn], [&](int k) { return factor * d[turn][k]; });
            if (column < width) store_quad<are_whole>(to + column, width - column, d[turn]);
        }
    }
    return dot;
}

template <class Stored, bool are_whole>
template <class Threads>
__device__ void CombineGradRow<Stored, are_whole>::operator()(i64 choice, const Threads& threads) const {
    using T = Real<Stored>;
    const i64 place = slot[choice];
    T dot = 0;
    if (place >= 0) {
        const Stored* const other = d_weight ? rows + place * width : nullptr;
        dot = scale_and_multiply<are_whole, 4>(dy + choice / choices * width, other, d_rows + place * width,
                                               weight ? weight[choice] : T{1}, width, threads);
    }
    if (!d_weight) return;
    dot = threads.sum(dot);
    if (threads.lane == 0) d_weight[choice] = dot;
}

template <class T>
__device__ inline T gate_of(T logit) {
    return static_cast<T>(sigmoid(static_cast<double>(logit)));
}

template <class Stored, bool are_whole>
template <class Threads>
__device__ void GateRow<Stored, are_whole>::operator()(i64 row, const Threads& threads) const {
    const Real<Stored> gate = gate_of(logit[row]);
    const i64 first = row * width;
    for (i64 column = threads.lane * kQuad; column < width; column += Threads::kSize * kQuad) {
        const Quad<Stored> addend = load_quad<are_whole>(rows + first + column, width - column);
        Quad<Stored> sum = load_quad<are_whole>(y + first + column, width - column);
        set_each(sum, [&](int k) { return std::fma(gate, addend[k], sum[k]); });
        store_quad<are_whole>(y + first + column, width - column, sum);
    }
}

template <class Stored, bool are_whole>
template <class Threads>
__device__ void GateGradRow<Stored, are_whole>::operator()(i64 row, const Threads& threads) const {
    using T = Real<Stored>;
    const T gate = gate_of(logit[row]);
    const i64 first = row * width;
    const T dot = threads.sum(
        scale_and_multiply<are_whole, 2>(dy + first, rows + first, d_rows + first, gate, width, threads));
    if (threads.lane == 0) d_logit[row] = gate * (T{1} - gate) * dot;
}

MOESAIC_EACH_TILE(GatherTile<std::uint16_t>);
MOESAIC_EACH_TILE(GatherTile<u32>);
MOESAIC_EACH_TILE(GatherTile<uint2>);
MOESAIC_EACH_TILE(GatherTile<uint4>);
MOESAIC_FOR_QUADS(MOESAIC_EACH_TILE, GatherAddTile);
MOESAIC_FOR_QUADS(MOESAIC_EACH_TILE, CombineTile);
MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, CombineGradRow);
MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, GateRow);
MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, GateGradRow);

}  // namespace moesaic::kernels
