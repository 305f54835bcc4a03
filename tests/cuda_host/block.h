// Runs the threads of one block at a time, on fibers, and reports what CUDA leaves undefined.
#pragma once

#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/cuda_host/device.h"
#include "tests/cuda_host/fiber.h"

namespace cuda_host {

/// What was found wrong with a kernel.
class KernelFault : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct Launch {
    std::string kernel;
    dim3 grid, block;
    std::size_t shared_bytes;
    std::function<void()> thread;
};

/// Executes launches one after the other, blocks in ascending order. One per process, under the emulator's
/// lock. A thread runs until it waits for others; in which order threads are tried depends on the seed.
class BlockExecutor {
  public:
    static BlockExecutor& instance();
    void set_seed(std::uint64_t seed);
    /// Throws KernelFault.
    void run(const Launch& launch);

    // What device.h offers to the thread that runs.
    void barrier(Place place);
    /// Lets all others run that can.
    void pause();
    std::uint64_t meet(WarpOperation operation, unsigned mask, std::uint64_t value, int source, Place place);
    const WarpWords& gather(const std::uint32_t (&mine)[WarpWords::kMost], Place place);
    std::vector<PendingCopy>& copies() { return threads_[current_].copies; }
    void* array(const void* key, std::size_t bytes, const char* name);
    void* dynamic_array();

    /// By the thread that runs: ends the launch, with this report or with one that names kernel and block
    /// first.
    [[noreturn]] void stop(const std::string& report);
    [[noreturn]] void fail(const std::string& what);
    [[nodiscard]] std::size_t running_thread() const { return current_; }
    /// Where all shared memory is.
    const char* shared_memory();

  private:
    enum class State : std::uint8_t { fresh, ready, at_barrier, in_warp, done };
    struct Thread {
        State state = State::fresh;
        Fiber* fiber = nullptr;
        Place place{};
        WarpOperation operation = WarpOperation::sync;
        std::uint64_t value = 0;  // what it brings to a meeting of its warp, then what it takes from there
        int source = 0;
        std::vector<PendingCopy> copies;
    };
    /// Of the lanes of `mask`, some of which wait already.
    struct Meeting {
        WarpOperation operation = WarpOperation::sync;
        unsigned mask = 0, arrived = 0;
        Place place{};
        std::size_t first = 0;  // the thread that came first
    };
    struct WarpState {
        unsigned existing = 0, done = 0;  // lanes
        std::vector<Meeting> meetings;    // with disjoint masks
        WarpWords words{};
    };
    struct Array {
        const void* key;
        std::size_t offset, bytes;
    };

    void run_block();
    void shuffle_order();
    void resume(std::size_t thread);
    void work_on_fiber();
    void select(std::size_t thread);
    void wait(Thread& thread, State state);
    void release_barrier();
    Meeting& join(WarpState& warp, const Meeting& mine);
    void finish(std::size_t first, const Meeting& meeting);
    void share_words(std::size_t first, const Meeting& meeting);
    void end_thread();
    std::string where(std::size_t thread) const;
    void clear_shared();
    Fiber* take_fiber();

    std::mt19937_64 random_;
    std::uint64_t seed_ = 0;
    const Launch* launch_ = nullptr;
    std::vector<Thread> threads_;
    std::vector<WarpState> warps_;
    std::vector<std::size_t> order_;
    std::size_t position_ = 0, current_ = 0, done_ = 0;
    std::vector<std::unique_ptr<Fiber>> fibers_;
    std::vector<Fiber*> idle_;
    std::string fault_;
    std::vector<Array> arrays_;
    char* shared_ = nullptr;
    std::size_t shared_used_ = 0, static_bytes_ = 0;
};

}  // namespace cuda_host
