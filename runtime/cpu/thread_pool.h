// A pool of worker threads that share numbered tasks with the thread that calls.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// One pool belongs to one rank. A call made from inside a task, or while another thread is using the pool,
/// runs its tasks inline. Tasks must not throw.
class ThreadPool {
  public:
    /// `threads` includes the calling thread. Without `spin` idle threads sleep at once, which is what a node
    /// with more threads than cores needs.
    explicit ThreadPool(int threads, bool spin = true);
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;
    ~ThreadPool();

    [[nodiscard]] int threads() const { return static_cast<int>(workers_.size()) + 1; }

    /// Calls f(task) for every task in [0, tasks), each once, in any order and on any thread; returns after
    /// the last one ended. Tasks are dealt to the threads like cards, each runs its own in ascending order
    /// and then takes what others have not begun: large ones should come first, so that small ones even it
    /// out.
    template <class F>
    void parallel_for(i64 tasks, F&& f) {
        if (tasks <= 1 || workers_.empty() || busy_.exchange(true, std::memory_order_acquire)) {
            for (i64 task = 0; task < tasks; ++task) f(task);
            return;
        }
        using Function = std::remove_reference_t<F>;
        const Call call = [](void* function, i64 task) { (*static_cast<Function*>(function))(task); };
        run(tasks, call, const_cast<void*>(static_cast<const void*>(std::addressof(f))));
        busy_.store(false, std::memory_order_release);
    }

  private:
    using Call = void (*)(void*, i64);

    // Data of different threads is so far apart: some CPUs fetch cache lines in pairs, and a line's way to a
    // core of another socket takes 200 ns.
    static constexpr std::size_t kApart = 128;

    /// A job's tasks owner, owner + threads, ... and all that a thread has to read of the job. `claim` has
    /// the job's number (upper half) and how many of the tasks nobody took yet (lower half): who takes one by
    /// compare-and-swap thereby knows that what it read of the job beforehand was still valid.
    struct alignas(kApart) Share {
        std::atomic<u64> claim{0};
        std::atomic<Call> call{nullptr};
        std::atomic<void*> function{nullptr};
        std::atomic<i64> first{0}, count{0};
        std::atomic<i32> unfinished{0};  // of 4 bytes: only those are waited for where they stand
    };

    void run(i64 tasks, Call call, void* function);
    void run_slice(i64 first, i64 tasks, Call call, void* function);
    void run_share(Share& share);
    bool run_shares(std::size_t own, u64 job);
    bool try_one_task(Share& share);
    void wait_until_done(Share& share);
    void work(std::size_t own);
    void wake();

    bool spin_;
    std::atomic<bool> stop_{false};
    std::vector<Share> shares_;  // the caller's, then each worker's
    std::vector<std::thread> workers_;
    alignas(kApart) std::atomic<i32> epoch_{0};      // changes with every job; sleeping workers wait on it
    alignas(kApart) std::atomic<bool> busy_{false};  // and what only the thread that set it uses
    u64 job_ = 0;
};

}  // namespace moesaic
