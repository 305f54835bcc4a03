// The entry point of the module: runtime/cuda_module.h.
#include <nvtx3/nvToolsExt.h>

#include "runtime/base/trace_range.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda_module.h"

namespace {

/// NVTX does nothing unless a profiler is attached.
constexpr moesaic::TraceSink kNvtx{[](const char* name) { nvtxRangePushA(name); }, [] { nvtxRangePop(); }};

}  // namespace

extern "C" moesaic::Backend* moesaic_backend_create(int number, std::string* problem) {
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error == cudaErrorInsufficientDriver) {
        *problem = "this machine has no NVIDIA driver that is new enough";
        return nullptr;
    }
    if (error != cudaSuccess || devices == 0) {
        *problem = fmt::format("no CUDA device was found ({})", cudaGetErrorString(error));
        return nullptr;
    }
    moesaic::set_trace_sink(&kNvtx);
    return new moesaic::CudaBackend(number % devices);
}
