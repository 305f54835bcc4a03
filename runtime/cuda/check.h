// Results of CUDA's and cuBLAS's functions.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cxxabi.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <typeinfo>

#include "runtime/base/error.h"

namespace moesaic::cuda {

/// What CUDA says of an error, and what to do about the kinds that it says too little of.
[[nodiscard]] inline std::string text_of(cudaError_t error) {
    const char* const text = cudaGetErrorString(error);
    switch (error) {
        case cudaErrorIllegalAddress:
        case cudaErrorMisalignedAddress:
        case cudaErrorIllegalInstruction:
        case cudaErrorLaunchFailure:
            return std::getenv("CUDA_LAUNCH_BLOCKING")
                       ? std::string(text)
                       : fmt::format("{}; a kernel that ran before did it: CUDA_LAUNCH_BLOCKING=1 names it",
                                     text);
        case cudaErrorNoKernelImageForDevice:
            return fmt::format("{}; configure with -DMOESAIC_CUDA_ARCHITECTURES for this device", text);
        default:
            return text;
    }
}

/// Throws Error with what CUDA says of it.
inline void check(cudaError_t error, std::string_view what) {
    if (error != cudaSuccess) throw Error(fmt::format("CUDA: {}: {}", what, text_of(error)));
}
inline void check(cublasStatus_t status, std::string_view what) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    const cudaError_t behind = cudaGetLastError();
    throw Error(fmt::format("cuBLAS: {}: {}{}", what, cublasGetStatusString(status),
                            behind == cudaSuccess ? "" : "; CUDA: " + text_of(behind)));
}
/// As above, of the start of the kernel that runs `functor`.
inline void check_launch(cudaError_t error, const std::type_info& functor) {
    if (error == cudaSuccess) return;
    int status = 0;
    char* const name = abi::__cxa_demangle(functor.name(), nullptr, nullptr, &status);
    const std::string what = fmt::format("starting {}", status == 0 ? name : functor.name());
    std::free(name);
    check(error, what);
}

}  // namespace moesaic::cuda
