// The switch of stacks for x86-64, System V: ucontext makes system calls and takes 15 times as long.
#include <cstdint>

#include "tests/cuda_host/fiber.h"

asm(R"(
.text
.globl cuda_host_switch_stack
.type cuda_host_switch_stack, @function
cuda_host_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmp *%rcx
.size cuda_host_switch_stack, .-cuda_host_switch_stack
)");

namespace cuda_host {

void* prepare_stack(void* top, void (*entry)()) {
    // Below the return address that the switch jumps to stand six registers; above it a null one, so that the
    // stack is aligned as at the entry of a function that was called.
    auto** slot = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t{15});
    *--slot = nullptr;
    *--slot = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--slot = nullptr;
    return slot;
}

}  // namespace cuda_host
