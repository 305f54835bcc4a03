// The switch of stacks by ucontext, for processors without one of their own.
#include <ucontext.h>

#include <cstdint>

#include "tests/cuda_host/fiber.h"

namespace cuda_host {

namespace {
constexpr std::uintptr_t kStackBytes = 120 * 1024;
}

// A stack's pointer is its context, which stands at the stack's upper end until the first switch and on the
// stack afterwards.
void* prepare_stack(void* top, void (*entry)()) {
    const auto end = (reinterpret_cast<std::uintptr_t>(top) - sizeof(ucontext_t)) & ~std::uintptr_t{63};
    auto* const context = reinterpret_cast<ucontext_t*>(end);
    getcontext(context);
    context->uc_stack.ss_sp = reinterpret_cast<void*>(end - kStackBytes);
    context->uc_stack.ss_size = kStackBytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return context;
}

extern "C" void cuda_host_switch_stack(void** from, void* to) {
    ucontext_t here;
    *from = &here;
    swapcontext(&here, static_cast<ucontext_t*>(to));
}

}  // namespace cuda_host
