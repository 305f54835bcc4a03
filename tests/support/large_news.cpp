#include "tests/support/large_news.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace moesaic {
namespace {

std::atomic<i64> count{0};

void* allocate(std::size_t bytes, std::size_t alignment) {
    if (bytes >= static_cast<std::size_t>(kLargeNewBytes)) count.fetch_add(1, std::memory_order_relaxed);
    const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
    void* const memory = std::aligned_alloc(alignment, whole == 0 ? alignment : whole);
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

}  // namespace

i64 large_news() noexcept {
    return count.load(std::memory_order_relaxed);
}

}  // namespace moesaic

// The program's own; the forms for arrays and the ones that do not throw call these.
void* operator new(std::size_t bytes) {
    return moesaic::allocate(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}

void* operator new(std::size_t bytes, std::align_val_t alignment) {
    return moesaic::allocate(bytes, static_cast<std::size_t>(alignment));
}

void operator delete(void* memory) noexcept {
    std::free(memory);
}

void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

void operator delete(void* memory, std::align_val_t) noexcept {
    std::free(memory);
}

void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
    std::free(memory);
}
