#include "tests/cuda_host/fiber.h"

#include <sys/mman.h>

#include <stdexcept>

#include "tests/cuda_host/sanitizer.h"

namespace cuda_host {

namespace {

constexpr std::size_t kGuard = 4096, kStack = 128 * 1024;
Fiber* running = nullptr;

}  // namespace

Fiber::Fiber() {
    memory_ = mmap(nullptr, kGuard + kStack, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) throw std::runtime_error("no memory for a fiber's stack");
    mprotect(memory_, kGuard, PROT_NONE);
    restart();
}

Fiber::~Fiber() {
    unpoison(memory_, kGuard + kStack);
    munmap(memory_, kGuard + kStack);
}

void Fiber::restart() {
    unpoison(static_cast<char*>(memory_) + kGuard, kStack);
    stack_pointer_ = prepare_stack(static_cast<char*>(memory_) + kGuard + kStack, &Fiber::entry);
}

void Fiber::entry() {
    Fiber* const self = running;
    finish_fiber_switch(nullptr, &self->scheduler_bottom_, &self->scheduler_size_);
    for (;;) {
        self->work();
        self->yield();
    }
}

void Fiber::resume() {
    void* fake_stack = nullptr;
    running = this;
    start_fiber_switch(&fake_stack, static_cast<char*>(memory_) + kGuard, kStack);
    cuda_host_switch_stack(&scheduler_pointer_, stack_pointer_);
    finish_fiber_switch(fake_stack, nullptr, nullptr);
}

void Fiber::yield() {
    void* fake_stack = nullptr;
    start_fiber_switch(&fake_stack, scheduler_bottom_, scheduler_size_);
    cuda_host_switch_stack(&stack_pointer_, scheduler_pointer_);
    finish_fiber_switch(fake_stack, &scheduler_bottom_, &scheduler_size_);
}

}  // namespace cuda_host
