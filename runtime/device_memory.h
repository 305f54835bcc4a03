// Memory of devices other than the host: where pools get it, and who may use it.
#pragma once

#include "runtime/stream.h"
#include "runtime/tensor.h"

namespace moesaic {

/// Whether the host may read and write such memory once the streams that use it were waited for. CUDA's is
/// managed, so that batches and checkpoints need no copies of their own.
[[nodiscard]] constexpr bool host_may_access(Device device) {
    return device == Device::cpu || device == Device::cuda;
}

/// Where the blocks of a device's pools come from.
class DeviceMemorySource {
  public:
    virtual ~DeviceMemorySource() = default;
    /// Aligned to 64 bytes; null where there is no more.
    [[nodiscard]] virtual void* allocate(i64 bytes) = 0;
    virtual void release(void* data, i64 bytes) noexcept = 0;

    /// Memory of the host that the device copies from and to by itself; null where there is no more.
    [[nodiscard]] virtual void* allocate_staging(i64 bytes) = 0;
    virtual void release_staging(void* data) noexcept = 0;
    /// Enqueues a copy between that and the device's memory on a stream of the device.
    virtual void copy(Stream& stream, const void* from, void* to, i64 bytes) = 0;
};

/// Whoever brings the device says so before the first pool of it and keeps the source until the last is gone.
void set_device_memory(Device device, DeviceMemorySource* source);
/// Null for the host, and for a device that nobody has brought.
[[nodiscard]] DeviceMemorySource* device_memory(Device device);

}  // namespace moesaic
