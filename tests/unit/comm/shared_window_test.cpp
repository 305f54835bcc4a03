// How meetings in shared memory fail: time-outs and aborts name what happened and leave nobody waiting.
#include "comm/shared_window.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "comm/accounting_communicator.h"
#include "comm/self_communicator.h"
#include "comm/thread_communicator.h"
#include "runtime/base/run_context.h"

namespace moesaic {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string failure_of(int world, const std::function<void(Communicator&)>& body, double timeout = 30) {
    try {
        run_ranks(world, body, timeout);
    } catch (const Error& failure) {
        return failure.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
}

TEST(SharedMeeting, ATimeOutNamesRankStepReasonAndWhoIsMissing) {
    for (const int ranks : {2, 8}) {  // with and without a core for each
        const std::string text = failure_of(
            ranks,
            [](Communicator& world) {
                SharedMeeting meeting(world);
                run_context().step = 7;
                if (world.rank() != 1) meeting.meet({"dispatch", 5});
                std::this_thread::sleep_for(std::chrono::milliseconds(600));
            },
            0.2);
        EXPECT_THAT(text, AllOf(HasSubstr("step 7: no answer for 0.2 s in meeting 'dispatch, layer 5' on "
                                          "communicator 'world'"),
                                HasSubstr("still awaited: rank 1 of 'world'")));
    }
}

TEST(SharedMeeting, WhoCameEarlyCountsTheTimeAsWaiting) {
    for (const int ranks : {2, 8}) {  // with and without a core for each
        run_ranks(ranks, [](Communicator& world) {
            SharedMeeting meeting(world);
            meeting.meet({"start"});
            const double before = world.waiting_seconds();
            if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
            meeting.meet({"dispatch"});
            const double waited = world.waiting_seconds() - before;
            if (world.rank() == 1) {
                EXPECT_LT(waited, 0.25);
            } else {
                EXPECT_GT(waited, 0.05);
            }
        });
    }
}

TEST(SharedMeeting, EndsWhenAnotherRankFails) {
    std::atomic<int> stopped = 0;
    const std::string text = failure_of(4, [&](Communicator& world) {
        SharedMeeting meeting(world);
        if (world.rank() == 2) throw Error("the disk is full");
        try {
            meeting.meet({"dispatch"});
        } catch (const AbortedError& aborted) {
            EXPECT_THAT(aborted.what(), HasSubstr("rank 2 failed: the disk is full"));
            ++stopped;
            throw;
        }
    });
    EXPECT_EQ(text, "the disk is full");
    EXPECT_EQ(stopped, 3);
}

TEST(SharedMeeting, ADisagreementNamesBothSides) {
    if (!kHeavyAssertions) GTEST_SKIP() << "compared with heavy assertions only";
    const std::string text = failure_of(3, [](Communicator& world) {
        SharedMeeting meeting(world);
        for (int round = 0; round < 3; ++round) meeting.meet({"dispatch", round});
        meeting.meet(world.rank() == 1 ? Label{"combine", 2} : Label{"dispatch", 5});
    });
    EXPECT_THAT(text, AllOf(HasSubstr("'combine, layer 2'"), HasSubstr("'dispatch, layer 5'")));
}

TEST(SharedWindow, IsCountedAsTheMemoryOfItsRank) {
    AccountingCommunicator group(0, 8, {8, 1});
    const auto none_there = group.share_memory(i64{1} << 36, {"rows"});  // 512 GiB of address space
    EXPECT_EQ(none_there->segment_bytes(), i64{1} << 36);
    EXPECT_EQ(group.shared_bytes(), i64{1} << 36);
    SelfCommunicator self;
    const auto alone = self.share_memory(100, {"rows"});
    EXPECT_EQ(alone->segment_bytes(), 128);
    const auto more = self.share_memory(64, {"rows"});
    EXPECT_EQ(self.shared_bytes(), 192);
}

}  // namespace
}  // namespace moesaic
