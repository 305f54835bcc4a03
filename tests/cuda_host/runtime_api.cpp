// The functions of CUDA's runtime that the back end calls, for the emulated GPUs.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/cuda_host/memory.h"
#include "tests/cuda_host/streams.h"

namespace {

using cuda_host::DeviceMemory;
using cuda_host::Scheduler;

Scheduler& scheduler() {
    return Scheduler::instance();
}
using Lock = std::scoped_lock<std::recursive_mutex>;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

cudaError_t keep(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

void note(const void* data, std::size_t bytes, cuda_host::Access access) {
    if (cuda_host::Checker* const checker = cuda_host::Checker::active())
        checker->item_access(data, bytes, access);
}

void copy_now(void* to, const void* from, std::size_t bytes) {
    note(from, bytes, cuda_host::Access::read);
    note(to, bytes, cuda_host::Access::write);
    std::memmove(to, from, bytes);
}

}  // namespace

void cuda_host::keep_error(cudaError_t error) {
    keep(error);
}

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    const Lock lock(scheduler().mutex);
    if (scheduler().settings.devices == 0) return keep(cudaErrorInsufficientDriver);
    *count = scheduler().settings.devices;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    const Lock lock(scheduler().mutex);
    if (device < 0 || device >= scheduler().settings.devices) return keep(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = current_device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
    std::memset(properties, 0, sizeof *properties);
    std::snprintf(properties->name, sizeof properties->name, "emulated GPU %d", device);
    properties->concurrentManagedAccess = 1;
    properties->major = 9;
    return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
    const Lock lock(scheduler().mutex);
    if (error == cudaErrorLaunchFailure && !scheduler().finding.empty()) return scheduler().finding.c_str();
    return error == cudaSuccess                       ? "no error"
           : error == cudaErrorInsufficientDriver     ? "no emulated driver"
           : error == cudaErrorMemoryAllocation       ? "out of memory"
           : error == cudaErrorNoKernelImageForDevice ? "the emulated device has no such kernel"
                                                      : "an error of the emulated runtime";
}
cudaError_t cudaGetLastError() {
    const Lock lock(scheduler().mutex);
    return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    const Lock lock(scheduler().mutex);
    *free = *total = scheduler().settings.memory_bytes;
    return cudaSuccess;
}
cudaError_t cudaMallocManaged(void** data, std::size_t bytes, unsigned) {
    const Lock lock(scheduler().mutex);
    *data = DeviceMemory::instance().allocate(bytes);
    return *data ? cudaSuccess : keep(cudaErrorMemoryAllocation);
}
cudaError_t cudaMalloc(void** data, std::size_t bytes) {
    return cudaMallocManaged(data, bytes, cudaMemAttachGlobal);
}
cudaError_t cudaMemAdvise(const void* data, std::size_t bytes, cudaMemoryAdvise, cudaMemLocation) {
    const Lock lock(scheduler().mutex);
    return keep(DeviceMemory::instance().contains(data, bytes) ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaFree(void* data) {
    const Lock lock(scheduler().mutex);
    if (!data || DeviceMemory::instance().release(data)) return cudaSuccess;
    scheduler().find("memory is freed that is no block");
    return keep(cudaErrorInvalidValue);
}

cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
    const Lock lock(scheduler().mutex);
    *data = std::malloc(bytes);
    std::memset(*data, 0xFF, bytes);
    scheduler().pinned.emplace(*data, bytes);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* data) {
    const Lock lock(scheduler().mutex);
    if (scheduler().pinned.erase(data) == 0) {
        scheduler().find("host memory is freed that is no block");
        return keep(cudaErrorInvalidValue);
    }
    std::free(data);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    const Lock lock(scheduler().mutex);
    *stream = reinterpret_cast<cudaStream_t>(scheduler().make_stream());
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const Lock lock(scheduler().mutex);
    const cudaError_t error = scheduler().run_until_empty(stream);
    scheduler().destroy(reinterpret_cast<cuda_host::EmulatedStream*>(stream));
    return keep(error);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const Lock lock(scheduler().mutex);
    return keep(scheduler().run_until_empty(stream));
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    const Lock lock(scheduler().mutex);
    return keep(scheduler().query(stream));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const Lock lock(scheduler().mutex);
    return keep(scheduler().wait(stream, event));
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    const Lock lock(scheduler().mutex);
    *event = reinterpret_cast<cudaEvent_t>(scheduler().make_event());
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const Lock lock(scheduler().mutex);
    return keep(scheduler().record(event, stream));
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    const Lock lock(scheduler().mutex);
    return keep(scheduler().query(event));
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
    const Lock lock(scheduler().mutex);
    const auto* const first = reinterpret_cast<const cuda_host::EmulatedEvent*>(start);
    const auto* const last = reinterpret_cast<const cuda_host::EmulatedEvent*>(end);
    *milliseconds = std::chrono::duration<float, std::milli>(last->when - first->when).count();
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) {
    return cudaSuccess;
}

// Pageable host memory is read when the copy is issued, and written before the call returns; pinned memory
// when the copy runs: as on hardware.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
    const Lock lock(scheduler().mutex);
    const DeviceMemory& memory = DeviceMemory::instance();
    if ((memory.owns(to) && !memory.contains(to, bytes)) ||
        (memory.owns(from) && !memory.contains(from, bytes)))
        return keep(scheduler().find("a copy leaves its block of memory"));
    const bool from_pinned = scheduler().is_pinned(from, bytes), to_pinned = scheduler().is_pinned(to, bytes);
    if (from_pinned || to_pinned) scheduler().staged_bytes += static_cast<std::int64_t>(bytes);
    if (!memory.owns(from) && !from_pinned) {
        std::string snapshot(static_cast<const char*>(from), bytes);
        return keep(scheduler().enqueue(
            stream, {.work = [=, kept = std::move(snapshot)] { copy_now(to, kept.data(), bytes); },
                     .what = "a copy to the device"}));
    }
    const cudaError_t error =
        scheduler().enqueue(stream, {.work = [=] { copy_now(to, from, bytes); }, .what = "a copy"});
    if (error != cudaSuccess || memory.owns(to) || to_pinned) return keep(error);
    return keep(scheduler().run_until_empty(stream));
}
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
    const Lock lock(scheduler().mutex);
    if (!DeviceMemory::instance().contains(data, bytes))
        return keep(scheduler().find("a memset leaves its block of memory"));
    return keep(scheduler().enqueue(stream, {.work =
                                                 [=] {
                                                     note(data, bytes, cuda_host::Access::write);
                                                     std::memset(data, value, bytes);
                                                 },
                                             .what = "a memset"}));
}

}  // extern "C"
