// AddressSanitizer's interface where the program has it, nothing elsewhere.
#pragma once

#include <cstddef>

extern "C" {
void __asan_poison_memory_region(const volatile void*, std::size_t) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void*, std::size_t) __attribute__((weak));
void __sanitizer_start_switch_fiber(void**, const void*, std::size_t) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*) __attribute__((weak));
}

namespace cuda_host {

[[nodiscard]] inline bool has_sanitizers() {
    return &__asan_poison_memory_region != nullptr;
}
inline void poison(const void* data, std::size_t bytes) {
    if (&__asan_poison_memory_region) __asan_poison_memory_region(data, bytes);
}
inline void unpoison(const void* data, std::size_t bytes) {
    if (&__asan_unpoison_memory_region) __asan_unpoison_memory_region(data, bytes);
}
inline void start_fiber_switch(void** fake_stack, const void* bottom, std::size_t bytes) {
    if (&__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
}
inline void finish_fiber_switch(void* fake_stack, const void** bottom, std::size_t* bytes) {
    if (&__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(fake_stack, bottom, bytes);
}

}  // namespace cuda_host
