#include "runtime/cuda_module.h"

#include "runtime/module_library.h"

namespace moesaic {

CudaBackendResult make_cuda_backend(int number) {
    const ModuleLibrary library = open_module(kCudaModuleVariable, kCudaModuleFile, "CUDA back end");
    if (!library.handle) return {nullptr, library.problem};
    const auto create = reinterpret_cast<CreateBackend>(function_of(library, kCreateBackend));
    if (!create) return {nullptr, fmt::format("{} is no back end of this program", library.path)};
    CudaBackendResult result;
    result.backend.reset(create(number, &result.problem));
    return result;
}

}  // namespace moesaic
