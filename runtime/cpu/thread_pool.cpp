// Each thread takes tasks of its own share, then of the others', by compare-and-swap; idle threads spin for
// some microseconds, then sleep.
#include "runtime/cpu/thread_pool.h"

#include <hwy/cache_control.h>

#include <algorithm>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

constexpr int kSpins = 1000;  // about 10 to 40 microseconds
constexpr i64 kMostTasks = 1 << 30;
constexpr u64 kTaskMask = 0xffffffffu;

/// Of the tasks owner, owner + threads, ... below `tasks`.
i64 tasks_of(i64 owner, i64 threads, i64 tasks) {
    return (tasks - owner + threads - 1) / threads;
}

}  // namespace

ThreadPool::ThreadPool(int threads, bool spin)
    : spin_(spin), shares_(static_cast<std::size_t>(std::max(threads, 1))) {
    MOESAIC_ASSERT(threads >= 1, "a pool of {} threads", threads);
    workers_.reserve(shares_.size() - 1);
    for (std::size_t i = 1; i < shares_.size(); ++i) workers_.emplace_back([this, i] { work(i); });
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
    const auto threads = static_cast<i64>(shares_.size());
    const u64 job = (shares_[0].claim.load(std::memory_order_relaxed) >> 32) + 1;
    for (i64 owner = 0; owner < threads; ++owner) {
        const i64 own = std::max<i64>(0, tasks_of(owner, threads, tasks));
        shares_[static_cast<std::size_t>(owner)].claim.store((job << 32) | static_cast<u64>(own));
    }
    epoch_.fetch_add(1);
    epoch_.notify_all();
    const i64 done = run_tasks(0);
    if (unfinished_.fetch_sub(static_cast<i32>(done), std::memory_order_acq_rel) != done) wait_until_done();
}

/// Runs tasks until none is left to take: how many.
i64 ThreadPool::run_tasks(std::size_t self) {
    i64 done = 0;
    for (std::size_t i = 0; i < shares_.size(); ++i) {
        const std::size_t owner = (self + i) % shares_.size();
        while (try_one_task_of(owner)) ++done;
    }
    return done;
}

/// Takes and runs one task of the current job; false when none is left to take.
bool ThreadPool::try_one_task_of(std::size_t owner) {
    std::atomic<u64>& share = shares_[owner].claim;
    u64 claim = share.load(std::memory_order_acquire);
    for (;;) {
        const auto left = static_cast<i64>(claim & kTaskMask), threads = static_cast<i64>(shares_.size());
        if (left == 0) return false;
        const Call call = call_.load(std::memory_order_relaxed);
        void* function = function_.load(std::memory_order_relaxed);
        const auto first = static_cast<i64>(owner);
        const i64 taken = tasks_of(first, threads, tasks_.load(std::memory_order_relaxed)) - left;
        const i64 task = first_.load(std::memory_order_relaxed) + first + taken * threads;
        if (!share.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire))
            continue;
        call(function, task);
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

void ThreadPool::work(std::size_t self) {
    i32 seen = epoch_.load(std::memory_order_acquire);
    while (!stop_.load(std::memory_order_acquire)) {
        const i64 done = run_tasks(self);
        if (done > 0 && unfinished_.fetch_sub(static_cast<i32>(done), std::memory_order_acq_rel) == done)
            unfinished_.notify_one();
        i32 epoch = epoch_.load(std::memory_order_acquire);
        for (int i = 0; spin_ && epoch == seen && i < kSpins; ++i) {
            hwy::Pause();
            epoch = epoch_.load(std::memory_order_acquire);
        }
        if (epoch == seen) epoch_.wait(seen, std::memory_order_acquire);
        seen = epoch_.load(std::memory_order_acquire);
    }
}

}  // namespace moesaic
