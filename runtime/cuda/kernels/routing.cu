#include "runtime/cuda/kernels/routing.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

template <class T>
__device__ void ChoiceElement<T>::operator()(i64 i) const {
    value[i] = index[i] < 0 ? T{0} : scores[i / choices * columns + index[i]];
}

template <class T>
__device__ void NormalizedRow<T>::operator()(i64 row) const {
    T sum = 0;
    for (i64 i = row * columns; i < (row + 1) * columns; ++i) sum += x[i];
    const T factor = scale / (sum + static_cast<T>(1e-20));
    for (i64 i = row * columns; i < (row + 1) * columns; ++i) x[i] *= factor;
}

template <class T>
__device__ void GatherElement<T>::operator()(i64 i) const {
    const i64 row = i / width, column = i % width, source = index[row];
    out[(place ? place[row] : row) * width + column] = source < 0 ? T{} : in[source * width + column];
}

template <class Stored>
__device__ void GatherAddElement<Stored>::operator()(i64 i) const {
    const i64 source = index[i / width];
    if (source >= 0) write(out[i], read(out[i]) + read(in[source * width + i % width]));
}

template <class Stored>
__device__ void CombineElement<Stored>::operator()(i64 i) const {
    const i64 token = i / width, column = i % width;
    Real<Stored> sum = accumulate ? read(y[i]) : Real<Stored>{0};
    for (i64 choice = token * choices; choice < (token + 1) * choices; ++choice) {
        if (slot[choice] < 0) continue;
        const Real<Stored> one = read(rows[slot[choice] * width + column]);
        sum = weight ? std::fma(weight[choice], one, sum) : sum + one;
    }
    write(y[i], sum);
}

template <class Stored>
__device__ void CombineGradRow<Stored>::operator()(i64 choice, const Warp& warp) const {
    using T = Real<Stored>;
    const i64 place = slot[choice];
    const Stored* const d = dy + choice / choices * width;
    T dot = 0;  // first: d_rows may be the rows' own memory
    if (d_weight && place >= 0) {
        for (i64 i = warp.lane; i < width; i += Warp::kSize)
            dot = std::fma(read(d[i]), read(rows[place * width + i]), dot);
    }
    dot = warp.sum(dot);
    if (d_weight && warp.lane == 0) d_weight[choice] = dot;
    if (place < 0) return;
    const T factor = weight ? weight[choice] : T{1};
    for (i64 i = warp.lane; i < width; i += Warp::kSize)
        write(d_rows[place * width + i], factor * read(d[i]));
}

template <class T>
__device__ inline T gate_of(T logit) {
    return static_cast<T>(sigmoid(static_cast<double>(logit)));
}

template <class Stored>
__device__ void GateElement<Stored>::operator()(i64 i) const {
    write(y[i], std::fma(gate_of(logit[i / width]), read(rows[i]), read(y[i])));
}

template <class Stored>
__device__ void GateGradRow<Stored>::operator()(i64 row, const Warp& warp) const {
    using T = Real<Stored>;
    const T gate = gate_of(logit[row]);
    T dot = 0;
    for (i64 i = row * width + warp.lane; i < (row + 1) * width; i += Warp::kSize)
        dot = std::fma(read(dy[i]), read(rows[i]), dot);
    dot = warp.sum(dot);  // before d_rows, which may be the rows' own memory
    if (warp.lane == 0) d_logit[row] = gate * (T{1} - gate) * dot;
    for (i64 i = row * width + warp.lane; i < (row + 1) * width; i += Warp::kSize)
        write(d_rows[i], gate * read(dy[i]));
}

MOESAIC_FOR_REALS(MOESAIC_EACH, ChoiceElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, NormalizedRow);
MOESAIC_EACH(GatherElement<std::uint16_t>);
MOESAIC_EACH(GatherElement<u32>);
MOESAIC_EACH(GatherElement<u64>);
MOESAIC_FOR_STORED(MOESAIC_EACH, GatherAddElement);
MOESAIC_FOR_STORED(MOESAIC_EACH, CombineElement);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, CombineGradRow);
MOESAIC_FOR_STORED(MOESAIC_EACH, GateElement);
MOESAIC_FOR_STORED(MOESAIC_EACH_ROW, GateGradRow);

}  // namespace moesaic::kernels
