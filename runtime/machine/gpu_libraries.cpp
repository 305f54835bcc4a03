#include "runtime/machine/gpu_libraries.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>

namespace moesaic {

namespace {

/// The function of that name in a loaded library, or null.
template <class Function>
Function* find_function(void* library, const char* name) {
    return library ? reinterpret_cast<Function*>(::dlsym(library, name)) : nullptr;
}

// The libraries stay loaded: the driver does not survive being unloaded.
void* load(const char* name) {
    return ::dlopen(name, RTLD_LAZY | RTLD_LOCAL);
}

/// CUDA writes 12.4 as 12040.
std::string cuda_version(int number) {
    return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}

void ask_driver(GpuLibraries& found) {
    void* const library = load("libcuda.so.1");
    found.driver = library != nullptr;
    const auto initialise = find_function<int(unsigned)>(library, "cuInit");
    const auto version = find_function<int(int*)>(library, "cuDriverGetVersion");
    const auto count_devices = find_function<int(int*)>(library, "cuDeviceGetCount");
    const auto device_name = find_function<int(char*, int, int)>(library, "cuDeviceGetName");
    if (!initialise || !version || !count_devices || !device_name) return;
    int number = 0, count = 0;
    if (version(&number) == 0) found.driver_version = cuda_version(number);
    if (const int code = initialise(0); code != 0) {
        found.driver_problem = fmt::format("cuInit returns {}", code);
        return;
    }
    if (const int code = count_devices(&count); code != 0)
        found.driver_problem = fmt::format("cuDeviceGetCount returns {}", code);
    for (int device = 0; device < count; ++device) {
        std::array<char, 256> name{};
        if (device_name(name.data(), name.size() - 1, device) == 0) found.devices.emplace_back(name.data());
    }
}

}  // namespace

GpuLibraries find_gpu_libraries() {
    GpuLibraries found;
    ask_driver(found);
    for (const char* name : {"libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so"}) {
        const auto version = find_function<int(int*)>(load(name), "cudaRuntimeGetVersion");
        int number = 0;
        if (!version || version(&number) != 0) continue;
        found.runtime = cuda_version(number);
        break;
    }
    if (const auto version = find_function<int(int*)>(load("libnccl.so.2"), "ncclGetVersion")) {
        int number = 0;
        // NCCL writes 2.18.3 as 21803.
        if (version(&number) == 0)
            found.nccl = fmt::format("{}.{}.{}", number / 10000, number % 10000 / 100, number % 100);
    }
    return found;
}

}  // namespace moesaic
