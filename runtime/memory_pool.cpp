#include "runtime/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

#include "runtime/base/host_memory.h"
#include "runtime/device_memory.h"

namespace moesaic {

namespace {

/// Four size classes per power of two: at most a quarter of a block is waste.
i64 size_class(i64 bytes) {
    const i64 least = std::max<i64>(bytes, 256);
    const auto power = static_cast<i64>(std::bit_floor(static_cast<u64>(least)));
    const i64 quarter = power / 4;
    return power + (least - power + quarter - 1) / quarter * quarter;
}

/// Null for memory of the host, and for dry runs of any device.
DeviceMemorySource* device_source(Device device, PoolMode mode) {
    return mode == PoolMode::address_space ? nullptr : device_memory(device);
}

}  // namespace

void* MemoryPool::from_system(i64 bytes) const {
    if (DeviceMemorySource* const source = device_source(device_, mode_)) return source->allocate(bytes);
    if (mode_ == PoolMode::address_space) {
        void* const data = mmap(nullptr, static_cast<std::size_t>(bytes), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return data == MAP_FAILED ? nullptr : data;
    }
    return allocate_host_memory(bytes);
}

void MemoryPool::to_system(void* data, i64 bytes) const {
    if (DeviceMemorySource* const source = device_source(device_, mode_)) {
        source->release(data, bytes);
    } else if (mode_ == PoolMode::address_space) {
        munmap(data, static_cast<std::size_t>(bytes));
    } else {
        std::free(data);
    }
}

MemoryPool::~MemoryPool() {
    for (const auto& [bytes, data] : free_) to_system(data, bytes);
}

MemoryPool::Block MemoryPool::take(i64 bytes) {
    const i64 wanted = size_class(bytes);
    Block block;
    // A block of up to twice the size is better than a fresh one: the pool stops growing after warm-up.
    if (const auto fit = free_.lower_bound(wanted); fit != free_.end() && fit->first <= 2 * wanted) {
        block = {fit->second, fit->first, use_};
        free_.erase(fit);
    } else {
        block = {from_system(wanted), wanted, use_};
        if (!block.data) {
            throw Error(fmt::format("out of memory: {} bytes were refused; {} are in use, {} reserved",
                                    wanted, bytes_in_use_, bytes_reserved_));
        }
        ++fresh_allocations_;
        bytes_reserved_ += wanted;
    }
    if (mode_ == PoolMode::poison) std::memset(block.data, 0xFF, static_cast<std::size_t>(block.bytes));
    bytes_in_use_ += block.bytes;
    in_use_by_use_[static_cast<std::size_t>(use_)] += block.bytes;
    if (bytes_in_use_ > peak_bytes_in_use_) {
        peak_bytes_in_use_ = bytes_in_use_;
        peak_by_use_ = in_use_by_use_;
    }
    return block;
}

void MemoryPool::give_back(Block block) noexcept {
    bytes_in_use_ -= block.bytes;
    in_use_by_use_[static_cast<std::size_t>(block.use)] -= block.bytes;
    free_.emplace(block.bytes, block.data);
}

}  // namespace moesaic
