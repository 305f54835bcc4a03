#include "runtime/cuda_module.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

namespace moesaic {

namespace {

namespace fs = std::filesystem;

/// Empty where there is none.
fs::path module_path() {
    constexpr const char* kName = "libmoesaic_cuda.so";
    if (const char* const named = std::getenv("MOESAIC_CUDA_MODULE")) return named;
    std::error_code error;
    const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
    for (const fs::path& path : {folder / kName, folder.parent_path() / "lib" / kName})
        if (fs::exists(path, error)) return path;
    return {};
}

}  // namespace

CudaBackendResult make_cuda_backend(int number) {
    const fs::path path = module_path();
    if (path.empty()) return {nullptr, "this build has no CUDA back end (libmoesaic_cuda.so)"};
    void* const module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // stays open: the back end is in it
    if (!module) return {nullptr, fmt::format("{} cannot be opened: {}", path.string(), dlerror())};
    const auto create = reinterpret_cast<CreateBackend>(dlsym(module, kCreateBackend));
    if (!create) return {nullptr, fmt::format("{} is no back end of this program", path.string())};
    CudaBackendResult result;
    result.backend.reset(create(number, &result.problem));
    return result;
}

}  // namespace moesaic
