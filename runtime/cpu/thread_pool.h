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
    /// the last one ended. The threads share the tasks out like cards, each runs its own in ascending order
    /// and then takes what others have not begun: so large ones come first, and small ones even it out.
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

    void run(i64 tasks, Call call, void* function);
    void run_slice(i64 first, i64 tasks, Call call, void* function);
    i64 run_tasks(std::size_t self);
    bool try_one_task_of(std::size_t owner);
    void wait_until_done();
    void work(std::size_t self);

    /// A thread's tasks: the current job's number (upper half) and how many of its tasks nobody took yet
    /// (lower half). Who takes one by compare-and-swap thereby knows that what it read of the job beforehand
    /// was still valid. Lines of their own: a thread that takes its own tasks waits for no other's cache.
    struct alignas(64) Share {
        std::atomic<u64> claim{0};
    };

    // The current job.
    alignas(64) std::atomic<i32> epoch_{0};  // changes with every job; sleeping workers wait on it
    std::atomic<Call> call_{nullptr};
    std::atomic<void*> function_{nullptr};
    std::atomic<i64> first_{0}, tasks_{0};
    std::atomic<bool> stop_{false};
    alignas(64) std::atomic<i32> unfinished_{0};
    alignas(64) std::atomic<bool> busy_{false};
    bool spin_;
    std::vector<Share> shares_;  // the caller's, then each worker's
    std::vector<std::thread> workers_;
};

}  // namespace moesaic
