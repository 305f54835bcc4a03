#include "runtime/cuda/kernels/attention.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

/// The keys that row t reads: [first, last).
struct Keys {
    i64 first, last;
};
__device__ inline Keys keys_of(const HeadShape& shape, i64 t) {
    const i64 sequence = t / shape.seq_len * shape.seq_len;
    if (!shape.causal) return {sequence, sequence + shape.seq_len};
    const i64 document = shape.first_key ? shape.first_key[t] : sequence;
    return {larger(sequence, document), t + 1};
}

template <class Stored>
__device__ inline const Stored* head_row(const Stored* data, i64 row, i64 heads, i64 head, i64 head_dim) {
    return data + (row * heads + head) * head_dim;
}

template <class Stored>
__device__ inline Real<Stored> dot(const Stored* a, const Stored* b, i64 count) {
    Real<Stored> sum = 0;
    for (i64 i = 0; i < count; ++i) sum = std::fma(read(a[i]), read(b[i]), sum);
    return sum;
}

/// Columns lane, lane + 32, ... of a row of head_dim columns.
template <class T>
struct LaneColumns {
    T value[kMostHeadColumns];

    __device__ LaneColumns() {
        for (T& one : value) one = 0;
    }
    __device__ void scale(T factor) {
        for (T& one : value) one *= factor;
    }
    template <class Stored>
    __device__ void add(T factor, const Stored* row, i64 head_dim, const Warp& warp) {
        for (int j = 0; j < kMostHeadColumns; ++j) {
            const i64 column = warp.lane + j * Warp::kSize;
            if (column < head_dim) value[j] = std::fma(factor, read(row[column]), value[j]);
        }
    }
    template <class Stored>
    __device__ void store(Stored* row, i64 head_dim, const Warp& warp) const {
        for (int j = 0; j < kMostHeadColumns; ++j) {
            const i64 column = warp.lane + j * Warp::kSize;
            if (column < head_dim) write(row[column], value[j]);
        }
    }
};

/// A number of every lane, for all lanes of the warp to read.
template <class T>
__device__ inline void exchange(const Warp& warp, T* tile, T mine) {
    warp.sync();  // whoever still reads the last one
    tile[warp.lane] = mine;
    warp.sync();
}

template <class Stored>
__device__ void AttentionRow<Stored>::operator()(i64 i, const Warp& warp) const {
    using T = Real<Stored>;
    GPU_SHARED(T, tiles, kRowsPerBlock * 32);
    T* const tile = tiles + threadIdx.x / 32 * 32;
    const i64 head = i / shape.rows, t = i % shape.rows, dim = shape.head_dim;
    const i64 key_head = head / (shape.heads / shape.kv_heads);
    const Stored* const query = head_row(q, t, shape.heads, head, dim);
    const Keys keys = keys_of(shape, t);
    const T scale = static_cast<T>(shape.scale);
    T maximum = minus_infinity<T>(), sum = 0;
    LaneColumns<T> mix;
    for (i64 first = keys.first; first < keys.last; first += Warp::kSize) {
        const i64 mine = first + warp.lane, count = smaller(keys.last - first, Warp::kSize);
        T score = minus_infinity<T>();
        if (mine < keys.last)
            score = scale * dot(query, head_row(k, mine, shape.kv_heads, key_head, dim), dim);
        const T before = maximum;
        maximum = larger(maximum, warp.largest(score));
        const T power = mine < keys.last ? std::exp(score - maximum) : T{0};
        const T rest = first == keys.first ? T{0} : std::exp(before - maximum);
        sum = std::fma(sum, rest, warp.sum(power));
        mix.scale(rest);
        exchange(warp, tile, power);
        for (i64 j = 0; j < count; ++j)
            mix.add(tile[j], head_row(v, first + j, shape.kv_heads, key_head, dim), dim, warp);
    }
    mix.scale(T{1} / sum);
    mix.store(out + (t * shape.heads + head) * dim, dim, warp);
    if (warp.lane == 0) log_sum_exp[i] = maximum + std::log(sum);
}

template <class Stored>
__device__ void AttentionDeltaRow<Stored>::operator()(i64 i, const Warp& warp) const {
    const i64 first = (i % shape.rows * shape.heads + i / shape.rows) * shape.head_dim;
    Real<Stored> sum = 0;
    for (i64 j = first + warp.lane; j < first + shape.head_dim; j += Warp::kSize)
        sum = std::fma(read(d_out[j]), read(out[j]), sum);
    sum = warp.sum(sum);
    if (warp.lane == 0) delta[i] = sum;
}

template <class Stored>
__device__ void QueryGradRow<Stored>::operator()(i64 i, const Warp& warp) const {
    using T = Real<Stored>;
    GPU_SHARED(T, tiles, kRowsPerBlock * 32);
    T* const tile = tiles + threadIdx.x / 32 * 32;
    const i64 head = i / shape.rows, t = i % shape.rows, dim = shape.head_dim;
    const i64 key_head = head / (shape.heads / shape.kv_heads);
    const Stored* const query = head_row(q, t, shape.heads, head, dim);
    const Stored* const d = head_row(d_out, t, shape.heads, head, dim);
    const Keys keys = keys_of(shape, t);
    const T scale = static_cast<T>(shape.scale);
    LaneColumns<T> sum;
    for (i64 first = keys.first; first < keys.last; first += Warp::kSize) {
        const i64 mine = first + warp.lane, count = smaller(keys.last - first, Warp::kSize);
        T d_score = 0;
        if (mine < keys.last) {
            const T d_probability = dot(d, head_row(v, mine, shape.kv_heads, key_head, dim), dim);
            const T score = scale * dot(query, head_row(k, mine, shape.kv_heads, key_head, dim), dim);
            d_score = std::exp(score - log_sum_exp[i]) * (d_probability - delta[i]) * scale;
        }
        exchange(warp, tile, d_score);
        for (i64 j = 0; j < count; ++j)
            sum.add(tile[j], head_row(k, first + j, shape.kv_heads, key_head, dim), dim, warp);
    }
    sum.store(dq + (t * shape.heads + head) * dim, dim, warp);
}

template <class Stored>
__device__ void KeyGradRow<Stored>::operator()(i64 i, const Warp& warp) const {
    using T = Real<Stored>;
    GPU_SHARED(T, tiles, 2 * kRowsPerBlock * 32);
    T *const d_scores = tiles + threadIdx.x / 32 * 64, *const probabilities = d_scores + 32;
    const i64 key_head = i / shape.rows, u = i % shape.rows, dim = shape.head_dim;
    const i64 group = shape.heads / shape.kv_heads, sequence = u / shape.seq_len * shape.seq_len;
    const Stored* const key = head_row(k, u, shape.kv_heads, key_head, dim);
    const Stored* const value = head_row(v, u, shape.kv_heads, key_head, dim);
    const T scale = static_cast<T>(shape.scale);
    LaneColumns<T> key_sum, value_sum;
    for (i64 head = key_head * group; head < (key_head + 1) * group; ++head) {
        const i64 begin = shape.causal ? u : sequence, end = sequence + shape.seq_len;
        for (i64 first = begin; first < end; first += Warp::kSize) {
            const i64 t = first + warp.lane, count = smaller(end - first, Warp::kSize);
            T d_score = 0, probability = 0;
            if (t < end && keys_of(shape, t).first <= u) {
                const T score = scale * dot(head_row(q, t, shape.heads, head, dim), key, dim);
                probability = std::exp(score - log_sum_exp[head * shape.rows + t]);
                const T d_probability = dot(head_row(d_out, t, shape.heads, head, dim), value, dim);
                d_score = probability * (d_probability - delta[head * shape.rows + t]) * scale;
            }
            exchange(warp, d_scores, d_score);
            exchange(warp, probabilities, probability);
            for (i64 j = 0; j < count; ++j) {
                key_sum.add(d_scores[j], head_row(q, first + j, shape.heads, head, dim), dim, warp);
                value_sum.add(probabilities[j], head_row(d_out, first + j, shape.heads, head, dim), dim,
                              warp);
            }
        }
    }
    key_sum.store(dk + (u * shape.kv_heads + key_head) * dim, dim, warp);
    value_sum.store(dv + (u * shape.kv_heads + key_head) * dim, dim, warp);
}

MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, AttentionRow);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, AttentionDeltaRow);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, QueryGradRow);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, KeyGradRow);

}  // namespace moesaic::kernels
