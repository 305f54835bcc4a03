#include "tests/cuda_host/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>

#include "tests/cuda_host/checker.h"
#include "tests/cuda_host/sanitizer.h"

namespace cuda_host {

namespace {

constexpr std::size_t kRange = std::size_t{64} << 30, kGuard = 512;

/// What a block of `bytes` takes, with the guard behind it; the block before it guards it in front.
std::size_t with_guard(std::size_t bytes) {
    return (bytes + 511) / 512 * 512 + kGuard;
}

constexpr unsigned char kPoison[2] = {0xF7, 0xFF};  // by address

}  // namespace

void fill_with_poison(void* data, std::size_t bytes) {
    auto* const byte = static_cast<unsigned char*>(data);
    for (std::size_t i = 0; i < bytes; ++i) byte[i] = kPoison[i % 2];
}

bool is_poison(const void* data, std::size_t bytes) {
    const auto* const byte = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < bytes; ++i)
        if (byte[i] != kPoison[reinterpret_cast<std::uintptr_t>(byte + i) % 2]) return false;
    return true;
}

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
    fill_with_poison(range_ + offset, bytes);
    poison(range_ + offset + bytes, room - bytes);
    if (Checker* const checker = Checker::active()) checker->allocated(range_ + offset, bytes);
    return range_ + offset;
}

bool DeviceMemory::release(void* data) {
    if (!owns(data)) return false;
    const auto block = used_.find(static_cast<std::size_t>(static_cast<char*>(data) - range_));
    if (block == used_.end()) return false;
    poison(data, block->second);
    if (Checker* const checker = Checker::active()) checker->released(data, block->second);
    free_.emplace(with_guard(block->second), block->first);
    used_.erase(block);
    return true;
}

bool DeviceMemory::owns(const void* data) const {
    const char* const address = static_cast<const char*>(data);
    return address >= range_ && address < range_ + kRange;
}

std::string DeviceMemory::where(const void* data) const {
    const auto offset = static_cast<std::size_t>(static_cast<const char*>(data) - range_);
    auto block = used_.upper_bound(offset);
    if (block == used_.begin()) return "before all blocks of memory";
    --block;
    const std::size_t end = block->first + block->second;
    return offset < end
               ? fmt::format("{} bytes into a block of {} bytes", offset - block->first, block->second)
               : fmt::format("{} bytes after the end of a block of {} bytes", offset - end, block->second);
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
