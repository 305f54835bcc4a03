#include "tests/cuda_host/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <stdexcept>

#include "tests/cuda_host/sanitizer.h"

namespace cuda_host {

namespace {

constexpr std::size_t kRange = std::size_t{64} << 30, kGuard = 512;

/// What a block of `bytes` takes, with the guard behind it; the block before it guards it in front.
std::size_t with_guard(std::size_t bytes) {
    return (bytes + 511) / 512 * 512 + kGuard;
}

}  // namespace

DeviceMemory& DeviceMemory::instance() {
    static DeviceMemory memory;
    return memory;
}

DeviceMemory::DeviceMemory() {
    void* const range =
        mmap(nullptr, kRange, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) throw std::runtime_error("no addresses for the emulated GPU's memory");
    range_ = static_cast<char*>(range);
    next_ = kGuard;
    poison(range_, kGuard);
}

void* DeviceMemory::allocate(std::size_t bytes) {
    const std::size_t room = with_guard(bytes);
    std::size_t offset = next_;
    if (const auto fit = free_.find(room); fit != free_.end()) {
        offset = fit->second;
        free_.erase(fit);
    } else {
        if (room > kRange - next_) return nullptr;
        next_ += room;
    }
    used_.emplace(offset, bytes);
    unpoison(range_ + offset, bytes);
    std::memset(range_ + offset, 0xFF, bytes);
    poison(range_ + offset + bytes, room - bytes);
    return range_ + offset;
}

bool DeviceMemory::release(void* data) {
    if (!owns(data)) return false;
    const auto block = used_.find(static_cast<std::size_t>(static_cast<char*>(data) - range_));
    if (block == used_.end()) return false;
    poison(data, block->second);
    free_.emplace(with_guard(block->second), block->first);
    used_.erase(block);
    return true;
}

bool DeviceMemory::owns(const void* data) const {
    const char* const address = static_cast<const char*>(data);
    return address >= range_ && address < range_ + kRange;
}

bool DeviceMemory::contains(const void* data, std::size_t bytes) const {
    if (!owns(data)) return false;
    const auto offset = static_cast<std::size_t>(static_cast<const char*>(data) - range_);
    auto block = used_.upper_bound(offset);
    if (block == used_.begin()) return false;
    --block;
    return offset + bytes <= block->first + block->second;
}

}  // namespace cuda_host
