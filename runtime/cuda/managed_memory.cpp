#include "runtime/cuda/managed_memory.h"

#include <cuda_runtime.h>

#include <array>
#include <atomic>

#include "runtime/cuda/check.h"
#include "runtime/cuda/cuda_stream.h"
#include "runtime/device_memory.h"

namespace moesaic {

using cuda::check;

namespace {

/// The device of the calling thread.
std::size_t current_device() {
    int device = 0;
    check(cudaGetDevice(&device), "asking for the device");
    return static_cast<std::size_t>(device);
}

/// Managed memory: checkpoints read it where it is. It lies on the GPU and leaves it only where the host
/// looks, so that rows never do; those that ranks exchange through the host are copied by the device.
class ManagedMemory final : public DeviceMemorySource {
  public:
    void* allocate(i64 bytes) override {
        const std::size_t device = current_device();
        if (!take_from_budget(budgets_.at(device), bytes)) return nullptr;
        void* data = nullptr;
        const auto size = static_cast<std::size_t>(bytes);
        if (cudaMallocManaged(&data, size, cudaMemAttachGlobal) != cudaSuccess) {
            (void)cudaGetLastError();  // the pool says what was refused
            budgets_.at(device).used -= bytes;
            return nullptr;
        }
        check(cudaMemAdvise(data, size, cudaMemAdviseSetPreferredLocation,
                            {cudaMemLocationTypeDevice, static_cast<int>(device)}),
              "placing memory on the device");
        return data;
    }
    void release(void* data, i64 bytes) noexcept override {
        int device = 0;
        if (cudaGetDevice(&device) == cudaSuccess)
            budgets_.at(static_cast<std::size_t>(device)).used -= bytes;
        cudaFree(data);
    }

    void* allocate_staging(i64 bytes) override {
        void* data = nullptr;
        if (cudaHostAlloc(&data, static_cast<std::size_t>(bytes), cudaHostAllocDefault) == cudaSuccess)
            return data;
        (void)cudaGetLastError();
        return nullptr;
    }
    void release_staging(void* data) noexcept override { cudaFreeHost(data); }
    void copy(Stream& stream, const void* from, void* to, i64 bytes) override {
        check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault,
                              dynamic_cast<CudaStream&>(stream).handle()),
              "copying rows on their way through the host");
    }

  private:
    struct Budget {
        std::atomic<i64> used = 0, most = 0;
    };
    /// CUDA hands out more managed memory than the device has, and then moves pages to and fro at every use.
    /// What was free when this process began to take some is all there is.
    static bool take_from_budget(Budget& budget, i64 bytes) {
        if (budget.used == 0) {
            std::size_t free = 0, total = 0;
            check(cudaMemGetInfo(&free, &total), "asking for the device's memory");
            budget.most = static_cast<i64>(free);
        }
        if ((budget.used += bytes) <= budget.most) return true;
        budget.used -= bytes;
        return false;
    }

    static constexpr std::size_t kMostDevices = 64;
    std::array<Budget, kMostDevices> budgets_;  // by number
};

}  // namespace

Device device_with_memory() {
    static ManagedMemory memory;
    set_device_memory(Device::cuda, &memory);
    return Device::cuda;
}

}  // namespace moesaic
