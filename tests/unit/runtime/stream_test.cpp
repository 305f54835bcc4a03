// Deferred streams show what a real device would: order within a stream, none between streams without events.
#include "runtime/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace moesaic {
namespace {

using ::testing::ElementsAre;

/// What a reader on another stream sees of a value that is written to 1.
int value_seen(u64 seed, bool with_wait) {
    HostStreamScheduler scheduler(StreamMode::deferred_shuffled, seed);
    const auto writer = scheduler.make_stream("compute"), reader = scheduler.make_stream("exchange");
    int value = 0, seen = -1;
    run_on_host(*writer, [&] { value = 1; });
    if (with_wait) reader->wait(writer->record());
    run_on_host(*reader, [&] { seen = value; });
    reader->synchronize();
    return seen;
}

TEST(DeferredStreams, ShowAMissingWait) {
    int wrong = 0;
    for (u64 seed = 0; seed < 20; ++seed) {
        wrong += value_seen(seed, false) == 0;
        EXPECT_EQ(value_seen(seed, true), 1);
    }
    EXPECT_GT(wrong, 0);
}

TEST(DeferredStreams, RunInTheirOwnOrderAndNotBeforeASynchronize) {
    HostStreamScheduler scheduler(StreamMode::deferred_shuffled, 3);
    const auto stream = scheduler.make_stream("compute");
    std::vector<int> order;
    for (int item = 0; item < 4; ++item) run_on_host(*stream, [&order, item] { order.push_back(item); });
    EXPECT_TRUE(order.empty());
    stream->synchronize();
    EXPECT_THAT(order, ElementsAre(0, 1, 2, 3));
}

TEST(DeferredStreams, ShuffleDifferentlyWithAnotherSeed) {
    int compute_first = 0;
    for (u64 seed = 0; seed < 20; ++seed) {
        HostStreamScheduler scheduler(StreamMode::deferred_shuffled, seed);
        const auto compute = scheduler.make_stream("compute"), exchange = scheduler.make_stream("exchange");
        std::vector<char> order;
        run_on_host(*compute, [&] { order.push_back('c'); });
        run_on_host(*exchange, [&] { order.push_back('x'); });
        compute->synchronize();
        exchange->synchronize();
        compute_first += order.front() == 'c';
    }
    EXPECT_GT(compute_first, 0);
    EXPECT_LT(compute_first, 20);
}

TEST(DeferredStreams, AssertWhenTheyWaitInACircle) {
    HostStreamScheduler scheduler(StreamMode::deferred_shuffled);
    const auto first = scheduler.make_stream("compute"), second = scheduler.make_stream("exchange");
    Event later = second->record();
    later.position = 2;  // after the wait and the work that second enqueues below
    first->wait(later);
    run_on_host(*first, [] {});
    second->wait(first->record());
    run_on_host(*second, [] {});
    EXPECT_DEATH(first->synchronize(), "circle");
}

TEST(InlineStreams, RunAtOnce) {
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("compute");
    int value = 0;
    run_on_host(*stream, [&] { value = 1; });
    EXPECT_EQ(value, 1);
    EXPECT_EQ(stream->record().stream, nullptr);
}

}  // namespace
}  // namespace moesaic
