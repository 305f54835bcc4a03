#include "runtime/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

namespace moesaic {

namespace {

constexpr i64 kAlignment = 64;
constexpr i64 kHugePage = i64{2} << 20;

/// Four size classes per power of two: at most a quarter of a block is waste.
i64 size_class(i64 bytes) {
    const i64 least = std::max<i64>(bytes, 256);
    const auto power = static_cast<i64>(std::bit_floor(static_cast<u64>(least)));
    const i64 quarter = power / 4;
    return power + (least - power + quarter - 1) / quarter * quarter;
}

void* from_system(i64 bytes) {
    const i64 alignment = bytes >= kHugePage ? kHugePage : kAlignment;
    const i64 rounded = (bytes + alignment - 1) / alignment * alignment;
    void* data = std::aligned_alloc(static_cast<std::size_t>(alignment), static_cast<std::size_t>(rounded));
    if (data && alignment == kHugePage) madvise(data, static_cast<std::size_t>(rounded), MADV_HUGEPAGE);
    return data;
}

}  // namespace

MemoryPool::~MemoryPool() {
    for (const auto& [bytes, data] : free_) std::free(data);
}

MemoryPool::Block MemoryPool::take(i64 bytes) {
    const i64 wanted = size_class(bytes);
    Block block;
    // A block of up to twice the size is better than a fresh one: the pool stops growing after warm-up.
    if (const auto fit = free_.lower_bound(wanted); fit != free_.end() && fit->first <= 2 * wanted) {
        block = {fit->second, fit->first};
        free_.erase(fit);
    } else {
        block = {from_system(wanted), wanted};
        if (!block.data) {
            throw Error(fmt::format("out of memory: {} bytes were refused; {} are in use, {} reserved",
                                    wanted, bytes_in_use_, bytes_reserved_));
        }
        ++fresh_allocations_;
        bytes_reserved_ += wanted;
    }
    if (poison_) std::memset(block.data, 0xFF, static_cast<std::size_t>(block.bytes));
    bytes_in_use_ += block.bytes;
    peak_bytes_in_use_ = std::max(peak_bytes_in_use_, bytes_in_use_);
    return block;
}

void MemoryPool::give_back(Block block) noexcept {
    bytes_in_use_ -= block.bytes;
    free_.emplace(block.bytes, block.data);
}

}  // namespace moesaic
