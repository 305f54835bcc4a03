#include "runtime/cuda/kernels/layers.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

template <class Stored>
__device__ void NormRow<Stored>::operator()(i64 row, const Warp& warp) const {
    const Stored* const from = x + row * n;
    Real<Stored> squares = 0;
    for (i64 i = warp.lane; i < n; i += Warp::kSize)
        squares = std::fma(read(from[i]), read(from[i]), squares);
    squares = warp.sum(squares);
    const auto inverse = static_cast<Real<Stored>>(
        1.0 / std::sqrt(static_cast<double>(squares) / static_cast<double>(n) + eps));
    if (warp.lane == 0) inverse_rms[row] = inverse;
    for (i64 i = warp.lane; i < n; i += Warp::kSize)
        write(y[row * n + i], read(from[i]) * inverse * read(weight[i]));
}

/// dx = w dy s - x s^3 / n <w dy, x>, where s is the inverse of the root mean square.
template <class Stored>
__device__ void NormGradRow<Stored>::operator()(i64 row, const Warp& warp) const {
    using T = Real<Stored>;
    const i64 first = row * n;
    T dot = 0;
    for (i64 i = warp.lane; i < n; i += Warp::kSize)
        dot = std::fma(read(weight[i]) * read(dy[first + i]), read(x[first + i]), dot);
    dot = warp.sum(dot);
    const T inverse = inverse_rms[row];
    const T share = dot * inverse * inverse * inverse / static_cast<T>(n);
    for (i64 i = warp.lane; i < n; i += Warp::kSize) {
        const T weighted = read(weight[i]) * read(dy[first + i]);
        const T value = std::fma(-read(x[first + i]), share, weighted * inverse);
        write(dx[first + i], accumulate ? read(dx[first + i]) + value : value);
    }
}

template <class Stored>
__device__ void NormWeightGradElement<Stored>::operator()(i64 column) const {
    Real<Stored> sum = d_weight[column];
    for (i64 row = 0; row < rows; ++row)
        sum = std::fma(read(dy[row * n + column]), read(x[row * n + column]) * inverse_rms[row], sum);
    d_weight[column] = sum;
}

template <class Stored>
__device__ void RopeElement<Stored>::operator()(i64 i) const {
    using T = Real<Stored>;
    const i64 half = head_dim / 2, pair = i % half, head = i / half % heads, row = i / half / heads;
    const i64 angle = row % seq_len * half + pair;
    const T c = cosine[angle], s = inverse ? -sine[angle] : sine[angle];
    Stored* const lower = x + row * row_stride + head * head_dim + pair;
    const T a = read(lower[0]), b = read(lower[half]);
    write(lower[0], std::fma(a, c, -(b * s)));
    write(lower[half], std::fma(b, c, a * s));
}

template <class Stored>
__device__ void EmbeddingGradRow<Stored>::operator()(i64 row, const Warp& warp) const {
    const i32 token = index[row];
    bool earlier = false;
    for (i64 t = warp.lane; t < row; t += Warp::kSize) earlier = earlier || index[t] == token;
    if (warp.any(earlier)) return;
    Real<Stored>* const sum = d_table + token * width;
    for (i64 t = row; t < rows; ++t) {
        if (index[t] != token) continue;
        for (i64 i = warp.lane; i < width; i += Warp::kSize) sum[i] += read(dy[t * width + i]);
    }
}

MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, NormRow);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, NormGradRow);
MOESAIC_FOR_STORED(MOESAIC_EACH, NormWeightGradElement);
MOESAIC_FOR_STORED(MOESAIC_EACH, RopeElement);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, EmbeddingGradRow);

}  // namespace moesaic::kernels
