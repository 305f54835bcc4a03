// Results of CUDA's and cuBLAS's functions.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include "runtime/base/error.h"

namespace moesaic::cuda {

/// Throws Error with what CUDA says of it.
inline void check(cudaError_t error, std::string_view what) {
    if (error != cudaSuccess) throw Error(fmt::format("CUDA: {}: {}", what, cudaGetErrorString(error)));
}
inline void check(cublasStatus_t status, std::string_view what) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    const cudaError_t behind = cudaGetLastError();
    throw Error(
        fmt::format("cuBLAS: {}: {}{}", what, cublasGetStatusString(status),
                    behind == cudaSuccess ? "" : std::string("; CUDA: ") + cudaGetErrorString(behind)));
}

}  // namespace moesaic::cuda
