// Thread-local buffers that only grow.
#include "runtime/cpu/scratch.h"

#include <algorithm>
#include <cstdlib>

#include "runtime/base/error.h"
#include "runtime/base/host_memory.h"

namespace moesaic::detail {
namespace {

struct Release {
    void operator()(std::byte* block) const { std::free(block); }
};
struct Buffer {
    std::unique_ptr<std::byte, Release> data;
    i64 bytes = 0;
};

}  // namespace

std::byte* scratch_bytes(ScratchSlot slot, i64 bytes) {
    thread_local std::array<Buffer, static_cast<std::size_t>(ScratchSlot::count)> buffers;
    Buffer& buffer = buffers[static_cast<std::size_t>(slot)];
    if (buffer.bytes < bytes || !buffer.data) {
        const i64 capacity = std::max<i64>(bytes + bytes / 4, 4096);  // rows per expert vary: leave some room
        buffer.data.reset();
        buffer.bytes = 0;
        buffer.data.reset(static_cast<std::byte*>(allocate_host_memory(capacity)));
        if (!buffer.data) throw Error(fmt::format("out of memory: {} bytes for a product's work", capacity));
        buffer.bytes = capacity;
    }
    return buffer.data.get();
}

}  // namespace moesaic::detail
