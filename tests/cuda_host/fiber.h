// Stacks that are switched by hand: one for every CUDA thread that waits for others.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace cuda_host {

/// Saves the callee's registers on the running stack, its pointer in `*from`, and goes on where `to` was
/// left. One file for each processor.
extern "C" void cuda_host_switch_stack(void** from, void* to);
/// The pointer of a fresh stack that will call `entry` when it is switched to; `top` is its upper end.
void* prepare_stack(void* top, void (*entry)());

/// Runs `work` whenever it is resumed after the last work ended. A fiber belongs to one emulator, whose lock
/// keeps all but one thread out.
class Fiber {
  public:
    Fiber();
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    /// From the scheduler: goes on where the fiber yielded, or begins `work`.
    void resume();
    /// On the fiber: back to the scheduler.
    void yield();
    /// Forgets where the fiber stood; its stack holds nothing that wants to be destroyed.
    void restart();

    std::function<void()> work;

  private:
    static void entry();

    void* memory_ = nullptr;  // guard page, then the stack
    void* stack_pointer_ = nullptr;
    void* scheduler_pointer_ = nullptr;
    const void* scheduler_bottom_ = nullptr;  // for AddressSanitizer
    std::size_t scheduler_size_ = 0;
};

}  // namespace cuda_host
