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

MOESAIC_FOR_REALS(MOESAIC_EACH, ChoiceElement);
MOESAIC_FOR_REALS(MOESAIC_EACH, NormalizedRow);

}  // namespace moesaic::kernels
