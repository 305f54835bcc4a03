// What cuBLAS calls our types, extents and factors. Its matrices have their columns first: c = a b of rows is
// cᵀ = bᵀ aᵀ there.
#pragma once

#include <cublas_v2.h>

#include "runtime/backend.h"

namespace moesaic::cuda {

inline int narrow(i64 extent) {
    MOESAIC_ASSERT(extent <= INT32_MAX, "an extent of {}", extent);
    return static_cast<int>(extent);
}

inline cudaDataType type_of(DType dtype) {
    return dtype == DType::f64 ? CUDA_R_64F : dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

inline cublasComputeType_t compute_type(DType dtype) {
    return dtype == DType::f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
}

inline cublasOperation_t transposed(bool is) {
    return is ? CUBLAS_OP_T : CUBLAS_OP_N;
}

/// Of c [m,n] = a b over p.
struct ProductExtents {
    i64 m, n, p;
};
inline ProductExtents extents_of(const Gemm& op) {
    return {op.c.rows(), op.c.cols(), op.trans_a ? op.a.rows() : op.a.cols()};
}

}  // namespace moesaic::cuda
