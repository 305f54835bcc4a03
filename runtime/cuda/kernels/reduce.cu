#include "runtime/cuda/kernels/reduce.h"

#include "runtime/cuda/kernels/device.h"

namespace moesaic::kernels {

template <class T>
__device__ void ReducePartsElement<T>::operator()(i64 i) const {
    T value = parts[i];
    for (int part = 1; part < count; ++part) {
        const T addend = parts[part * elements + i];
        if (reduction == Reduction::sum) {
            value = static_cast<T>(value + addend);
        } else if (reduction == Reduction::max) {
            value = value >= addend || value != value ? value : addend;
        } else {
            value = value <= addend || value != value ? value : addend;
        }
    }
    into[i] = value;
}

MOESAIC_EACH(ReducePartsElement<double>);
MOESAIC_EACH(ReducePartsElement<float>);
MOESAIC_EACH(ReducePartsElement<i64>);
MOESAIC_EACH(ReducePartsElement<i32>);

}  // namespace moesaic::kernels
