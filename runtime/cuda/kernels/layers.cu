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
__device__ void NormWeightGradChunk<Stored, are_whole>::operator()(i64 number, const Team& team) const {
    using T = Real<Stored>;
    constexpr i32 kQuads = kColumns / kQuad, kRowsAtOnce = Team::kSize / kQuads;
    constexpr int kBatch = sizeof(Stored) == 8 ? 2 : 4;  // rows of a thread on their way at once
    GPU_SHARED(T, sums, kRowsAtOnce * kColumns);
    const i32 chunk = static_cast<i32>(number) / panels, panel = static_cast<i32>(number) - chunk * panels;
    const i32 first = panel * kColumns, group = team.lane / kQuads;
    const i32 column = first + team.lane % kQuads * static_cast<i32>(kQuad);
    const i64 chunk_begin = static_cast<i64>(chunk) * kRowsOfChunk,
              end = smaller(rows, chunk_begin + kRowsOfChunk);
    T sum[kQuad] = {};
    for (i64 begin = chunk_begin + group; begin < end && column < n; begin += kBatch * kRowsAtOnce) {
        Quad<Stored> xs[kBatch] = {}, dys[kBatch] = {};
        T inverse[kBatch] = {};
        GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
            const i64 row = begin + i * kRowsAtOnce;
            if (row >= end) continue;
            xs[i] = load_quad<are_whole>(x + row * n + column, n - column);
            dys[i] = load_quad<are_whole>(dy + row * n + column, n - column);
            inverse[i] = inverse_rms[row];
        }
        GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
            GPU_UNROLL for (int k = 0; k < kQuad; ++k) sum[k] =
                std::fma(dys[i][k], xs[i][k] * inverse[i], sum[k]);
        }
    }
    GPU_UNROLL for (int k = 0; k < kQuad; ++k) sums[team.lane * kQuad + k] = sum[k];
    team.sync();
    if (team.lane >= kColumns || first + team.lane >= n) return;
    T total = 0;
    GPU_UNROLL for (int i = 0; i < kRowsAtOnce; ++i) total += sums[i * kColumns + team.lane];
    parts[static_cast<i64>(chunk) * n + first + team.lane] = total;
}

template <class T>
__device__ void ChunkSumElement<T>::operator()(i64 column) const {
    constexpr int kBatch = 8;  // on their way at once
    T total = sum[column];
    for (i64 begin = 0; begin < chunks; begin += kBatch) {
        T batch[kBatch] = {};
        GPU_UNROLL for (int i = 0; i < kBatch; ++i) {
            if (begin + i < chunks) batch[i] = parts[(begin + i) * n + column];
        }
        GPU_UNROLL for (int i = 0; i < kBatch; ++i) total += batch[i];
    }
    sum[column] = total;
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
    constexpr i32 kParts = Team::kSize / kRows,
                  kKeys = 256;  // a part of the team for each of several tiles of keys
    GPU_SHARED(int4, tiles, kParts * kKeys / 4);
    GPU_SHARED(i32, counts, Team::kSize);
    auto* const keys = reinterpret_cast<i32*>(tiles);
    const i32 part = team.lane / kRows;
    const i64 row = number * kRows + team.lane % kRows;
    const i32 key = row < rows ? index[row] : 0;
    i32 before = 0;
    for (i64 begin = 0; begin < rows; begin += kParts * kKeys) {
        for (i32 i = team.lane; i < kParts * kKeys; i += Team::kSize)
            keys[i] = begin + i < rows ? index[begin + i] : 0x7fffffff;
        team.sync();
        // Of rows before this one equal indices come first too.
        const i32 earlier = static_cast<i32>(smaller<i64>(larger<i64>(row - begin - part * kKeys, 0), kKeys));
        const int4* const tile = tiles + part * (kKeys / 4);
        if (earlier == 0 || earlier == kKeys) {
            const i32 bound = key + (earlier > 0 ? 1 : 0);
            for (i32 i = 0; i < kKeys / 4; ++i) {
                const int4 four = tile[i];
                before += (four.x < bound ? 1 : 0) + (four.y < bound ? 1 : 0);
                before += (four.z < bound ? 1 : 0) + (four.w < bound ? 1 : 0);
            }
        } else {
            for (i32 i = 0; i < kKeys; ++i)
                before += keys[part * kKeys + i] < key + (i < earlier ? 1 : 0) ? 1 : 0;
        }
        team.sync();
    }
    counts[team.lane] = before;
    team.sync();
    if (part > 0 || row >= rows) return;
    for (i32 other = 1; other < kParts; ++other) before += counts[other * kRows + team.lane];
    order[before] = static_cast<i32>(row);
    sorted[before] = key;
}

template <class Stored, bool are_whole>
template <class Threads>
__device__ void EmbeddingGradRow<Stored, are_whole>::operator()(i64 place, const Threads& threads) const {
    constexpr int kBatch = sizeof(Stored) == 8 ? 2 : 4;  // rows on their way at once
    const i32 token = sorted[place], columns = static_cast<i32>(width);
    if (place > 0 && sorted[place - 1] == token) return;
    if (place + kMostOfRow < rows && sorted[place + kMostOfRow] == token) return;  // EmbeddingGradRun's
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

template <class Stored, bool are_whole>
__device__ void EmbeddingGradRun<Stored, are_whole>::operator()(i64 number, const Team& team) const {
    using T = Real<Stored>;
    constexpr i32 kQuads = kColumns / kQuad, kRowsAtOnce = Team::kSize / kQuads;
    constexpr int kLoads = 2, kBatch = 8;
    constexpr i32 kTileRows = kLoads * kRowsAtOnce;
    GPU_SHARED(Quad<Stored>, tile, kTileRows * kQuads);
    const i32 block = static_cast<i32>(number) / panels, panel = static_cast<i32>(number) - block * panels;
    const i64 here = block * kMostOfRow;
    const i32 token = sorted[here];
    if (here > 0 && sorted[here - kMostOfRow] == token) return;  // an earlier team's
    const i64 looked_at = here - 1 - team.lane;
    const i64 first =
        here - team.sum(team.lane < kMostOfRow && looked_at >= 0 && sorted[looked_at] == token ? 1 : 0);
    if (first + kMostOfRow >= rows || sorted[first + kMostOfRow] != token) return;  // EmbeddingGradRow's
    const i32 columns = static_cast<i32>(width), summed = panel * kColumns + team.lane;
    const i32 column = panel * kColumns + team.lane % kQuads * static_cast<i32>(kQuad);
    const bool sums = team.lane < kColumns && summed < columns;
    T* const to = d_table + token * width + summed;
    T sum = sums ? *to : T{0};
    const auto is_there = [&](i64 place) { return place < rows && sorted[place] == token; };
    for (i64 begin = first; is_there(begin); begin += kTileRows) {
        Quad<Stored> loaded[kLoads] = {};
        GPU_UNROLL for (int i = 0; i < kLoads; ++i) {
            const i64 place = begin + i * kRowsAtOnce + team.lane / kQuads;
            if (column < columns && is_there(place))
                loaded[i] = load_quad<are_whole>(dy + order[place] * width + column, columns - column);
        }
        GPU_UNROLL for (int i = 0; i < kLoads; ++i) tile[i * Team::kSize + team.lane] = loaded[i];
        team.sync();
        const auto* const addends = reinterpret_cast<const Stored*>(tile) + team.lane;
        for (i32 row = 0; sums && row < kTileRows; row += kBatch) {
            T batch[kBatch] = {};
            GPU_UNROLL for (int i = 0; i < kBatch; ++i) batch[i] = read(addends[(row + i) * kColumns]);
            GPU_UNROLL for (int i = 0; i < kBatch; ++i) sum += batch[i];  // zeros behind the last
        }
        team.sync();
    }
    if (sums) *to = sum;
}

MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, NormRow);
MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, NormGradRow);
MOESAIC_FOR_QUADS(MOESAIC_EACH_TEAM, NormWeightGradChunk);
MOESAIC_FOR_REALS(MOESAIC_EACH, ChunkSumElement);
MOESAIC_FOR_QUADS(MOESAIC_EACH_TILE, RopeTile);
MOESAIC_EACH_TEAM(IndexOrder);
MOESAIC_FOR_QUADS(MOESAIC_EACH_ROW_OF, EmbeddingGradRow);
MOESAIC_FOR_QUADS(MOESAIC_EACH_TEAM, EmbeddingGradRun);

}  // namespace moesaic::kernels
