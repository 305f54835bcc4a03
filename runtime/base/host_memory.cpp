#include "runtime/base/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>

namespace moesaic {

void* allocate_host_memory(i64 bytes) {
    constexpr i64 kAlignment = 64, kHugePage = i64{2} << 20;
    const i64 unit = bytes >= kHugePage ? kHugePage : kAlignment;
    const auto rounded = static_cast<std::size_t>((bytes + unit - 1) / unit * unit);
    void* const data = std::aligned_alloc(static_cast<std::size_t>(unit), rounded);
    if (data && unit == kHugePage) madvise(data, rounded, MADV_HUGEPAGE);  // advice: it may be refused
    return data;
}

i64 own_cache_bytes() {
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return bytes > 0 ? bytes : i64{1} << 20;
}

}  // namespace moesaic
