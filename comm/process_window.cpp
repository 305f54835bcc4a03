#include "comm/process_window.h"

#include <sys/mman.h>

#include <algorithm>

namespace moesaic {

namespace {

ProcessWindow::Memory pages(i64 bytes, int flags) {
    const auto size = static_cast<std::size_t>(std::max<i64>(bytes, 1));
    void* const data =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (data == MAP_FAILED)
        throw Error(fmt::format("out of memory: {} bytes of a window were refused", bytes));
    return {static_cast<std::byte*>(data), [size](std::byte* block) { ::munmap(block, size); }};
}

}  // namespace

ProcessWindow::Memory ProcessWindow::allocate(i64 bytes) {
    Memory memory = pages(bytes, 0);
    ::madvise(memory.get(), static_cast<std::size_t>(std::max<i64>(bytes, 1)), MADV_HUGEPAGE);
    return memory;
}

ProcessWindow::Memory ProcessWindow::address_space(i64 bytes) {
    return pages(bytes, MAP_NORESERVE);
}

}  // namespace moesaic
