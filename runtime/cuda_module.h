// The CUDA back end as a module: a library that is opened when somebody asks for a GPU, so that the program
// starts, and runs, without CUDA's libraries.
#pragma once

#include <memory>
#include <string>

#include "runtime/backend.h"

namespace moesaic {

/// What a module exports as `moesaic_backend_create`: a back end on the device with this number modulo the
/// number of devices; null, and why, where there is none. The module is built with the program and takes what
/// it needs of the runtime from it.
using CreateBackend = Backend* (*)(int number, std::string* problem);
inline constexpr const char* kCreateBackend = "moesaic_backend_create";
/// The environment's name of another module than the one beside the program, such as the emulator's.
inline constexpr const char* kCudaModuleVariable = "MOESAIC_CUDA_MODULE";
inline constexpr const char* kCudaModuleFile = "libmoesaic_cuda.so";

struct CudaBackendResult {
    std::unique_ptr<Backend> backend;
    std::string problem;  ///< why there is none, as part of a sentence
};

/// Opens the module (module_library.h).
[[nodiscard]] CudaBackendResult make_cuda_backend(int number);

}  // namespace moesaic
