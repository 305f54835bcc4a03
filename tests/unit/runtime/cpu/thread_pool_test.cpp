// The thread pool runs every task once, whoever calls and however many threads there are.
#include "runtime/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>

namespace moesaic {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
    for (const bool spin : {true, false}) {
        for (const int threads : {1, 2, 3, 7}) {
            ThreadPool pool(threads, spin);
            EXPECT_EQ(pool.threads(), threads);
            for (const i64 tasks : {i64{0}, i64{1}, i64{2}, i64{17}, i64{1000}}) {
                std::vector<int> runs(static_cast<std::size_t>(tasks), 0);
                pool.parallel_for(tasks, [&](i64 task) { ++runs[static_cast<std::size_t>(task)]; });
                EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), tasks) << threads << " threads";
            }
        }
    }
}

TEST(ThreadPool, ManyShortJobsInARowKeepTheirResultsApart) {
    ThreadPool pool(3);
    std::vector<i64> values(8);
    for (i64 job = 0; job < 5000; ++job) {
        const i64 tasks = 2 + job % 7;
        pool.parallel_for(tasks, [&](i64 task) { values[static_cast<std::size_t>(task)] = job + task; });
        for (i64 task = 0; task < tasks; ++task)
            ASSERT_EQ(values[static_cast<std::size_t>(task)], job + task);
    }
}

TEST(ThreadPool, WakesSleepingWorkers) {
    ThreadPool pool(2);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> started{0};
    // Each task waits for the other: one thread alone would never end.
    pool.parallel_for(2, [&](i64) {
        ++started;
        while (started < 2) std::this_thread::yield();
    });
    EXPECT_EQ(started, 2);
}

TEST(ThreadPool, ReturnsOnlyAfterTheLastTaskEnded) {
    for (const bool spin : {true, false}) {
        ThreadPool pool(2, spin);
        const std::thread::id caller = std::this_thread::get_id();
        std::atomic<int> started{0}, ended{0};
        pool.parallel_for(2, [&](i64) {
            ++started;
            while (started < 2) std::this_thread::yield();
            if (std::this_thread::get_id() != caller)
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
            ++ended;
        });
        EXPECT_EQ(ended, 2);
    }
}

TEST(ThreadPool, OthersTakeTheTasksOfAThreadThatIsHeldUp) {
    ThreadPool pool(3);
    for (const i64 long_one : {0, 1, 2, 7}) {
        std::atomic<int> ended{0};
        // It waits for all others: whoever runs it cannot run them.
        pool.parallel_for(20, [&](i64 task) {
            while (task == long_one && ended < 19) std::this_thread::yield();
            ++ended;
        });
        EXPECT_EQ(ended, 20);
    }
}

TEST(ThreadPool, NestedCallsRunInline) {
    ThreadPool pool(3);
    std::atomic<i64> sum{0};
    pool.parallel_for(
        10, [&](i64 outer) { pool.parallel_for(10, [&](i64 inner) { sum += outer * 10 + inner; }); });
    EXPECT_EQ(sum, 99 * 100 / 2);
}

TEST(ThreadPool, TwoCallersMayShareIt) {
    ThreadPool pool(2);
    std::array<i64, 2> sums{0, 0};
    auto call = [&](i64 caller) {
        std::vector<i64> part(64);
        for (int repeat = 0; repeat < 500; ++repeat) {
            pool.parallel_for(64, [&](i64 task) { part[static_cast<std::size_t>(task)] += caller + 1; });
        }
        sums[static_cast<std::size_t>(caller)] = std::accumulate(part.begin(), part.end(), i64{0});
    };
    std::thread other(call, 1);
    call(0);
    other.join();
    EXPECT_EQ(sums[0], 64 * 500);
    EXPECT_EQ(sums[1], 2 * 64 * 500);
}

}  // namespace
}  // namespace moesaic
