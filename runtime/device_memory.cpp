#include "runtime/device_memory.h"

#include <atomic>

namespace moesaic {

namespace {
std::atomic<DeviceMemorySource*> cuda_memory = nullptr;
}

void set_device_memory(Device device, DeviceMemorySource* source) {
    MOESAIC_ASSERT(device == Device::cuda, "device {} has memory already", static_cast<int>(device));
    cuda_memory = source;
}

DeviceMemorySource* device_memory(Device device) {
    return device == Device::cuda ? cuda_memory.load() : nullptr;
}

}  // namespace moesaic
