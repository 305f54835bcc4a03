// Streams with threads of their own: order, events, and how failures reach whoever waits.
#include "runtime/threaded_stream.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "runtime/base/error.h"

namespace moesaic {
namespace {

TEST(ThreadedStream, RunsInOrderBesideTheCaller) {
    ThreadedStream stream("exchange");
    std::atomic<bool> go = false;
    std::vector<int> seen;
    stream.run([&] {
        while (!go) std::this_thread::yield();
    });
    for (int i = 0; i < 100; ++i) stream.run([&seen, i] { seen.push_back(i); });
    go = true;  // the caller was not held up
    stream.synchronize();
    ASSERT_EQ(seen.size(), 100u);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(seen[static_cast<std::size_t>(i)], i);
}

TEST(ThreadedStream, EventsOrderTwoStreams) {
    ThreadedStream one("compute"), two("exchange");
    int value = 0, read = -1;
    for (int round = 1; round <= 200; ++round) {
        one.run([&value, round] { value = round; });
        two.wait(one.record());
        two.run([&] { read = value; });
        one.wait(two.record());
    }
    one.run([&value] { value *= 2; });
    one.synchronize();
    EXPECT_EQ(value, 400);
    EXPECT_EQ(read, 200);
}

TEST(ThreadedStream, WorksInTheContextOfWhoeverEnqueued) {
    ThreadedStream stream("exchange");
    run_context() = {3, 8, 118};
    RunContext seen;
    stream.run([&seen] { seen = run_context(); });
    run_context() = {};
    stream.synchronize();
    EXPECT_EQ(seen.rank, 3);
    EXPECT_EQ(seen.world_size, 8);
    EXPECT_EQ(seen.step, 118);
}

TEST(ThreadedStream, AFailureReachesAllThatWait) {
    ThreadedStream one("compute"), two("exchange");
    bool after = false, dependent = false;
    two.run([] { throw Error("the network is down"); });
    two.run([&after] { after = true; });
    one.wait(two.record());
    one.run([&dependent] { dependent = true; });
    for (ThreadedStream* stream : {&one, &two}) {
        try {
            stream->synchronize();
            ADD_FAILURE() << stream->name() << " went on";
        } catch (const Error& failure) {
            EXPECT_STREQ(failure.what(), "the network is down");
        }
    }
    EXPECT_FALSE(after);
    EXPECT_FALSE(dependent);
}

TEST(ThreadedStream, DropsWhatIsQueuedWhenItGoes) {
    std::atomic<int> ran = 0;
    {
        ThreadedStream stream("exchange");
        stream.run([&] {
            ++ran;
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        });
        while (ran == 0) std::this_thread::yield();
        for (int i = 0; i < 1000; ++i) stream.run([&] { ++ran; });
    }
    EXPECT_EQ(ran, 1);
}

}  // namespace
}  // namespace moesaic
