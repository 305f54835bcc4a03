// What g++ -fsanitize=thread calls at every access, in place of ThreadSanitizer's library: the kernels'
// accesses go to the checker.
#include <cstddef>

#include "tests/cuda_host/checker.h"

using cuda_host::Access;
using cuda_host::Checker;

namespace {

inline void note(const void* data, std::size_t bytes, Access access, bool aligned,
                 const void* return_address) {
    Checker* const checker = Checker::active();
    if (checker && checker->watches(data))
        checker->access(data, bytes, access, aligned, cuda_host::location_of(return_address));
}

}  // namespace

#define MOESAIC_ENTRY(name, bytes, access, aligned)                      \
    void name(void* data) {                                              \
        note(data, bytes, access, aligned, __builtin_return_address(0)); \
    }
#define MOESAIC_ENTRIES(bytes)                                                \
    MOESAIC_ENTRY(__tsan_read##bytes, bytes, Access::read, true)              \
    MOESAIC_ENTRY(__tsan_write##bytes, bytes, Access::write, true)            \
    MOESAIC_ENTRY(__tsan_unaligned_read##bytes, bytes, Access::read, false)   \
    MOESAIC_ENTRY(__tsan_unaligned_write##bytes, bytes, Access::write, false) \
    MOESAIC_ENTRY(__tsan_volatile_read##bytes, bytes, Access::read, true)     \
    MOESAIC_ENTRY(__tsan_volatile_write##bytes, bytes, Access::write, true)

extern "C" {
MOESAIC_ENTRIES(1)
MOESAIC_ENTRIES(2)
MOESAIC_ENTRIES(4)
MOESAIC_ENTRIES(8)
MOESAIC_ENTRIES(16)

void __tsan_read_range(void* data, std::size_t bytes) {
    note(data, bytes, Access::read, false, __builtin_return_address(0));
}
void __tsan_write_range(void* data, std::size_t bytes) {
    note(data, bytes, Access::write, false, __builtin_return_address(0));
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
