// Handing out tasks by compare-and-swap; idle threads spin for some microseconds, then sleep.
#include "runtime/cpu/thread_pool.h"

#include <hwy/cache_control.h>

#include <algorithm>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

constexpr int kSpins = 1000;  // about 10 to 40 microseconds
constexpr i64 kMostTasks = 1 << 30;
constexpr u64 kTaskMask = 0xffffffffu;

}  // namespace

ThreadPool::ThreadPool(int threads, bool spin) : spin_(spin) {
    MOESAIC_ASSERT(threads >= 1, "a pool of {} threads", threads);
    workers_.reserve(static_cast<std::size_t>(threads - 1));
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
    stop_.store(true);
    epoch_.fetch_add(1);
    epoch_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(i64 tasks, Call call, void* function) {
    for (i64 first = 0; first < tasks; first += kMostTasks)
        run_slice(first, std::min(kMostTasks, tasks - first), call, function);
}

void ThreadPool::run_slice(i64 first, i64 tasks, Call call, void* function) {
    call_.store(call, std::memory_order_relaxed);
    function_.store(function, std::memory_order_relaxed);
    first_.store(first, std::memory_order_relaxed);
    tasks_.store(tasks, std::memory_order_relaxed);
    unfinished_.store(static_cast<i32>(tasks), std::memory_order_relaxed);
    const u64 job = (claim_.load(std::memory_order_relaxed) >> 32) + 1;
    claim_.store((job << 32) | static_cast<u64>(tasks));
    epoch_.fetch_add(1);
    epoch_.notify_all();
    while (try_one_task()) {
    }
    wait_until_done();
}

/// Takes and runs one task of the current job; false when none is left to take.
bool ThreadPool::try_one_task() {
    u64 claim = claim_.load(std::memory_order_acquire);
    for (;;) {
        const u64 left = claim & kTaskMask;
        if (left == 0) return false;
        const Call call = call_.load(std::memory_order_relaxed);
        void* function = function_.load(std::memory_order_relaxed);
        const i64 task = first_.load(std::memory_order_relaxed) + tasks_.load(std::memory_order_relaxed) -
                         static_cast<i64>(left);
        if (!claim_.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel,
                                          std::memory_order_acquire))
            continue;
        call(function, task);
        if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
        return true;
    }
}

void ThreadPool::wait_until_done() {
    for (int i = 0; spin_ && i < kSpins; ++i) {
        if (unfinished_.load(std::memory_order_acquire) == 0) return;
        hwy::Pause();
    }
    for (i32 left = unfinished_.load(std::memory_order_acquire); left != 0;
         left = unfinished_.load(std::memory_order_acquire))
        unfinished_.wait(left, std::memory_order_acquire);
}

void ThreadPool::work() {
    while (!stop_.load(std::memory_order_acquire)) {
        const i32 epoch = epoch_.load(std::memory_order_acquire);
        bool worked = try_one_task();
        for (int i = 0; spin_ && !worked && i < kSpins; ++i) {
            hwy::Pause();
            worked = try_one_task();
        }
        if (!worked && !stop_.load(std::memory_order_acquire)) epoch_.wait(epoch, std::memory_order_acquire);
    }
}

}  // namespace moesaic
