#include "runtime/cuda/kernels/layers.h"

#include "runtime/cuda/kernels/tile_kernels.h"

namespace moesaic::kernels {

/// Quads of a row that a thread keeps in registers between the sum and its use; what is longer is read twice.
template <class Stored>
inline constexpr int kKept = sizeof(Stored) == 8 ? 2 : 8;

/// The first column of a thread's quad number `turn`.
template <class Threads>
__device__ inline i32 column_of(const Threads& threads, i32 turn) {
    return (turn * static_cast<i32>(Threads::kSize) + threads.lane) * static_cast<i32>(kQuad);
}

template <class Stored>
__device__ inline Real<Stored> add_squares(const Quad<Stored>& quad, Real<Stored> sum) {
    for (int i = 0; i < kQuad; ++i) sum = std::fma(quad[i], quad[i], sum);
    return sum;
}

template <class Stored, bool are_whole>
template <class Threads>
__device__ void NormRow<Stored, are_whole>::operator()(i64 row, const Threads& threads) const {
    const Stored* const from = x + row * n;
    Stored* const to = y + row * n;
    Quad<Stored> kept[kKept<Stored>] = {};
    GPU_UNROLL for (int turn = 0; turn < kKept<Stored>; ++turn) {
        const i32 column = column_of(threads, turn);
        kept[turn] = column < n ? load_quad<are_whole>(from + column, n - column) : zero_quad<Stored>();
    }
    Real<Stored> squares = 0;
    GPU_UNROLL for (int turn = 0; turn < kKept<Stored>; ++turn) squares = add_squares(kept[turn], squares);
    for (i32 turn = kKept<Stored>, column = 0; (column = column_of(threads, turn)) < n; ++turn)
        squares = add_squares(load_quad<are_whole>(from + column, n - column), squares);
    squares = threads.sum(squares);
    const auto inverse = static_cast<Real<Stored>>(
        1.0 / std::sqrt(static_cast<double>(squares) / static_cast<double>(n) + eps));
    if (threads.lane == 0) inverse_rms[row] = inverse;
    const auto write_normed = [&](i32 column, Quad<Stored> quad) {
        const Quad<Stored> factors = load_quad<are_whole>(weight + column, n - column);
        set_each(quad, [&](int i) { return quad[i] * inverse * factors[i]; });
        store_quad<are_whole>(to + column, n - column, quad);
    };
    GPU_UNROLL for (int turn = 0; turn < kKept<Stored>; ++turn) if (column_of(threads, turn) < n)
        write_normed(column_of(threads, turn), kept[turn]);
    for (i32 turn = kKept<Stored>, column = 0; (column = column_of(threads, turn)) < n; ++turn)
        write_normed(column, load_quad<are_whole>(from + column, n - column));
}

/// dx = w dy s - x s^3 / n <w dy, x>, where s is the inverse of the root mean square.
template <class Stored, bool are_whole>
template <class Threads>
__device__ void NormGradRow<Stored, are_whole>::operator()(i64 row, const Threads& threads) const {
    using T = Real<Stored>;
    const i64 first = row * n;
    const auto load = [&](const Stored* operand, i32 column) {
        return load_quad<are_whole>(operand + column, n - column);
    };
    Quad<Stored> kept_x[kKept<Stored>] = {}, kept_dy[kKept<Stored>] = {};
    GPU_UNROLL for (int turn = 0; turn < kKept<Stored>; ++turn) {
        const i32 column = column_of(threads, turn);
        kept_x[turn] = column < n ? load(x + first, column) : zero_quad<Stored>();
        kept_dy[turn] = column < n ? load(dy + first, column) : zero_quad<Stored>();
    }
    T dot = 0;
    const auto add_products = [&](i32 column, const Quad<Stored>& one_x, const Quad<Stored>& one_dy) {
        const Quad<Stored> factors = load(weight, column);
        for (int i = 0; i < kQuad; ++i) dot = std::fma(factors[i] * one_dy[i], one_x[i], dot);
    };
    GPU_UNROLL for (int turn = 0; turn < kKept<Stored>; ++turn) if (column_of(threads, turn) < n)
        add_products(column_of(threads, turn), kept_x[turn], kept_dy[turn]);
    for (i32 turn = kKept<Stored>, column = 0; (column = column_of(threads, turn)) < n; ++turn)
        add_products(column, load(x + first, column), load(dy + first, column));
    dot = threads.sum(dot);
    const T inverse = inverse_rms[row];
    const T share = dot * inverse * inverse * inverse / static_cast<T>(n);
    const auto write_gradient = [&](i32 column, const Quad<Stored>& one_x, const Quad<Stored>& one_dy) {
        const Quad<Stored> factors = load(weight, column);
        Quad<Stored> sum = accumulate ? load(dx + first, column) : zero_quad<Stored>();
        set_each(sum, [&](int i) {
            const T value = std::fma(-one_x[i], share, factors[i] * one_dy[i] * inverse);
            return accumulate ? sum[i] + value : value;
        });
        store_quad<are_whole>(dx + first + column, n - column, sum);
    };
    GPU_UNROLL for (int turn = 0; turn < kKept<Stored>; ++turn) if (column_of(threads, turn) < n)
        write_gradient(column_of(threads, turn), kept_x[turn], kept_dy[turn]);
    for (i32 turn = kKept<Stored>, column = 0; (column = column_of(threads, turn)) < n; ++turn)
        write_gradient(column, load(x + first, column), load(dy + first, column));
}

template <class Stored, bool are_whole>
__device__ void NormWeightGradColumns<Stored, are_whole>::operator()(i64 panel, const Team& team) const {
    // 32 KiB of both operands at a time; the next rows are on their way while one warp adds these.
    constexpr i32 kTileRows = 512 / static_cast<i32>(sizeof(Stored)), kQuads = kColumns / kQuad;
    constexpr i32 kRowsAtOnce = Team::kSize / kQuads, kLoads = kTileRows / kRowsAtOnce;
    GPU_SHARED(Quad<Stored>, tile_x, kTileRows * kQuads);
    GPU_SHARED(Quad<Stored>, tile_dy, kTileRows * kQuads);
    GPU_SHARED(Real<Stored>, tile_inverse, kTileRows);
    const i32 first = static_cast<i32>(panel) * kColumns,
              column = first + team.lane % kQuads * static_cast<i32>(kQuad);
    const i32 row_of_thread = team.lane / kQuads, summed = first + team.lane;
    const bool sums = team.lane < kColumns && summed < n;
    Real<Stored> sum = sums ? d_weight[summed] : Real<Stored>{0};
    Quad<Stored> next_x[kLoads] = {}, next_dy[kLoads] = {};
    const auto load = [&](i64 begin) {  // the last row again behind it: no branches
        GPU_UNROLL for (int i = 0; i < kLoads && column < n; ++i) {
            const i64 at = smaller(begin + i * kRowsAtOnce + row_of_thread, rows - 1) * n + column;
            next_x[i] = load_quad<are_whole>(x + at, n - column);
            next_dy[i] = load_quad<are_whole>(dy + at, n - column);
        }
    };
    if (rows == 0) return;
    load(0);
    for (i64 begin = 0; begin < rows; begin += kTileRows) {
        GPU_UNROLL for (int i = 0; i < kLoads; ++i) {
            tile_x[i * Team::kSize + team.lane] = next_x[i];
            tile_dy[i * Team::kSize + team.lane] = next_dy[i];
        }
        const i32 count = static_cast<i32>(smaller<i64>(kTileRows, rows - begin));
        if (team.lane < count) tile_inverse[team.lane] = inverse_rms[begin + team.lane];
        team.sync();
        load(begin + kTileRows);
        const auto* const xs = reinterpret_cast<const Stored*>(tile_x) + team.lane;
        const auto* const dys = reinterpret_cast<const Stored*>(tile_dy) + team.lane;
        for (i32 row = 0; sums && row < count; ++row)
            sum = std::fma(read(dys[row * kColumns]), read(xs[row * kColumns]) * tile_inverse[row], sum);
        team.sync();
    }
    if (sums) d_weight[summed] = sum;
}

template <class Stored, bool are_whole>
__device__ void RopeTile<Stored, are_whole>::operator()(const Tile& tile) const {
    using T = Real<Stored>;
    const i32 half = head_dim / 2, head = tile.column / quads_per_head;
    const i32 pair = (tile.column - head * quads_per_head) * static_cast<i32>(kQuad), room = half - pair;
    const i64 angle = static_cast<i64>(static_cast<u32>(tile.row) % static_cast<u32>(seq_len)) * half + pair;
    const Quad<T> cosines = load_quad<are_whole>(cosine + angle, room),
                  sines = load_quad<are_whole>(sine + angle, room);
    Stored* const lower = x + tile.row * row_stride + head * head_dim + pair;
    const Quad<Stored> a = load_quad<are_whole>(lower, room), b = load_quad<are_whole>(lower + half, room);
    const auto sine_of = [&](int i) { return inverse ? -sines[i] : sines[i]; };
    Quad<Stored> rotated_a, rotated_b;
    set_each(rotated_a, [&](int i) { return std::fma(a[i], cosines[i], -(b[i] * sine_of(i))); });
    set_each(rotated_b, [&](int i) { return std::fma(b[i], cosines[i], a[i] * sine_of(i)); });
    store_quad<are_whole>(lower, room, rotated_a);
    store_quad<are_whole>(lower + half, room, rotated_b);
}

__device__ void IndexOrder::operator()(i64 number, const Team& team) const {
    GPU_SHARED(int4, tile, Team::kSize / 4);
    auto* const keys = reinterpret_cast<i32*>(tile);
    const i64 row = number * Team::kSize + team.lane;
    const i32 key = row < rows ? index[row] : 0;
    i32 before = 0;
    for (i64 begin = 0; begin < rows; begin += Team::kSize) {
        keys[team.lane] = begin + team.lane < rows ? index[begin + team.lane] : 0x7fffffff;
        team.sync();
        // Of rows before this one equal indices come first too.
        const i32 earlier = static_cast<i32>(smaller<i64>(larger<i64>(row - begin, 0), Team::kSize));
        for (i32 i = 0; i < Team::kSize / 4; ++i) {
            const int4 four = tile[i];
            before += four.x < key + (4 * i < earlier ? 1 : 0) ? 1 : 0;
            before += four.y < key + (4 * i + 1 < earlier ? 1 : 0) ? 1 : 0;
            before += four.z < key + (4 * i + 2 < earlier ? 1 : 0) ? 1 : 0;
            before += four.w < key + (4 * i + 3 < earlier ? 1 : 0) ? 1 : 0;
        }
        team.sync();
    }
    if (row >= rows) return;
    order[before] = static_cast<i32>(row);
    sorted[before] = key;
}

template <class Stored, bool are_whole>
template <class Threads>
__device__ void EmbeddingGradRow<Stored, are_whole>::operator()(i64 place, const Threads& threads) const {
    constexpr int kBatch = sizeof(Stored) == 8 ? 4 : 8;  // rows on their way at once
    const i32 token = sorted[place], columns = static_cast<i32>(width);
    if (place > 0 && sorted[place - 1] == token) return;
    Real<Stored>* const to = d_table + token * width;
    for (i32 turn = 0, column = 0; (column = column_of(threads, turn)) < columns; ++turn) {
        Quad<Real<Stored>> sum = load_quad<are_whole>(to + column, columns - column);
        i32 ahead[kBatch];
        const auto look_ahead = [&](i64 next) {
            GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
                ahead[i] = next + i < rows && sorted[next + i] == token ? order[next + i] : -1;
            }
        };
        look_ahead(place);
        for (i64 next = place; ahead[0] >= 0;) {
            Quad<Stored> batch[kBatch] = {};
            i32 added[kBatch];
            GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
                added[i] = ahead[i];
                if (added[i] >= 0)
                    batch[i] = load_quad<are_whole>(dy + added[i] * width + column, columns - column);
            }
            look_ahead(next += kBatch);
            GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
                if (added[i] >= 0) set_each(sum, [&](int k) { return sum[k] + batch[i][k]; });
            }
        }
        store_quad<are_whole>(to + column, columns - column, sum);
    }
}

MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, NormRow);
MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, NormGradRow);
MOESAIC_FOR_QUADS(MOESAIC_EACH_TEAM, NormWeightGradColumns);
MOESAIC_FOR_QUADS(MOESAIC_EACH_TILE, RopeTile);
MOESAIC_EACH_TEAM(IndexOrder);
MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, EmbeddingGradRow);

}  // namespace moesaic::kernels
