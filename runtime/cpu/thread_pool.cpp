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

u64 job_of(u64 claim) {
    return claim >> 32;
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
    wake();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::wake() {
    epoch_.fetch_add(1);
    epoch_.notify_all();
}

void ThreadPool::run(i64 tasks, Call call, void* function) {
    for (i64 first = 0; first < tasks; first += kMostTasks)
        run_slice(first, std::min(kMostTasks, tasks - first), call, function);
}

void ThreadPool::run_slice(i64 first, i64 tasks, Call call, void* function) {
    ++job_;
    const auto threads = static_cast<i64>(shares_.size());
    for (i64 owner = threads - 1; owner >= 0; --owner) {
        Share& share = shares_[static_cast<std::size_t>(owner)];
        const i64 count = (tasks - owner + threads - 1) / threads;
        share.call.store(call, std::memory_order_relaxed);
        share.function.store(function, std::memory_order_relaxed);
        share.first.store(first + owner, std::memory_order_relaxed);
        share.count.store(count, std::memory_order_relaxed);
        share.unfinished.store(static_cast<i32>(count), std::memory_order_relaxed);
        share.claim.store((job_ << 32) | static_cast<u64>(count), std::memory_order_release);
    }
    wake();
    run_shares(0, job_);
    for (Share& share : shares_) wait_until_done(share);
}

/// Runs tasks of its own share, then of the others', until none is left to take; false when it passed a share
/// that the caller had not written for this job yet.
bool ThreadPool::run_shares(std::size_t own, u64 job) {
    bool complete = true;
    for (std::size_t i = 0; i < shares_.size(); ++i) {
        Share& share = shares_[(own + i) % shares_.size()];
        complete &= job_of(share.claim.load(std::memory_order_acquire)) == job;
        run_share(share);
    }
    return complete;
}

void ThreadPool::run_share(Share& share) {
    i32 done = 0;
    while (try_one_task(share)) ++done;
    if (done > 0 && share.unfinished.fetch_sub(done, std::memory_order_acq_rel) == done)
        share.unfinished.notify_one();
}

/// Takes and runs one task of the current job; false when none is left to take.
bool ThreadPool::try_one_task(Share& share) {
    u64 claim = share.claim.load(std::memory_order_acquire);
    for (;;) {
        const auto left = static_cast<i64>(claim & kTaskMask);
        if (left == 0) return false;
        const Call call = share.call.load(std::memory_order_relaxed);
        void* function = share.function.load(std::memory_order_relaxed);
        const i64 taken = share.count.load(std::memory_order_relaxed) - left;
        const i64 task =
            share.first.load(std::memory_order_relaxed) + taken * static_cast<i64>(shares_.size());
        if (!share.claim.compare_exchange_weak(claim, claim - 1, std::memory_order_acq_rel,
                                               std::memory_order_acquire))
            continue;
        call(function, task);
        return true;
    }
}

void ThreadPool::wait_until_done(Share& share) {
    for (int i = 0; spin_ && i < kSpins; ++i) {
        if (share.unfinished.load(std::memory_order_acquire) == 0) return;
        hwy::Pause();
    }
    for (i32 left = share.unfinished.load(std::memory_order_acquire); left != 0;
         left = share.unfinished.load(std::memory_order_acquire))
        share.unfinished.wait(left, std::memory_order_acquire);
}

/// While it spins, a worker reads only its own share: others it would take from their owners' caches.
void ThreadPool::work(std::size_t own) {
    const auto job = [&] { return job_of(shares_[own].claim.load(std::memory_order_acquire)); };
    for (u64 seen = 0;;) {
        for (int i = 0; spin_ && job() == seen && i < kSpins; ++i) hwy::Pause();
        if (job() == seen) {
            const i32 epoch = epoch_.load();
            if (stop_.load()) return;
            if (job() == seen) epoch_.wait(epoch);
            continue;
        }
        const u64 now = job();
        if (run_shares(own, now)) {
            seen = now;
        } else {
            std::this_thread::yield();
        }
    }
}

}  // namespace moesaic
