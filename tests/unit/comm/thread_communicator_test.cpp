// How ranks as threads fail: time-outs, disagreements and aborts name what happened and leave nobody waiting.
#include "comm/thread_communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "runtime/base/run_context.h"

namespace moesaic {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// Runs `body` and returns the text of the Error that comes out; fails when it is of another kind.
std::string failure_of(int world, const std::function<void(Communicator&)>& body, double timeout = 30) {
    try {
        run_ranks(world, body, timeout);
    } catch (const AbortedError& consequence) {
        ADD_FAILURE() << "a consequence was reported as the cause: " << consequence.what();
    } catch (const Error& failure) {
        return failure.what();
    }
    ADD_FAILURE() << "nothing was thrown";
    return {};
}

/// An all-to-all of `rows` doubles to everyone, of which `expected` are waited for.
void exchange(Communicator& world, Label label, i64 rows = 1, i64 cols = 1, i64 expected = -1) {
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("test");
    const auto size = static_cast<std::size_t>(world.size());
    if (expected < 0) expected = rows;
    std::vector<i64> out(size, rows), in(size, expected);
    const auto most = static_cast<std::size_t>(std::max(rows, expected) * cols);
    std::vector<double> send(size * most), recv(size * most);
    world.all_to_all_rows(*stream, view_of(send.data(), {rows * world.size(), cols}), out,
                          view_of(recv.data(), {expected * world.size(), cols}), in, label);
}

TEST(RunRanks, TimeInSmallMessagesIsWaiting) {
    run_ranks(2, [](Communicator& world) {
        exchange(world, {"counts"});
        const double seconds = world.seconds(), waiting = world.waiting_seconds();
        EXPECT_GT(waiting, 0);
        EXPECT_DOUBLE_EQ(waiting, seconds);
        exchange(world, {"rows"}, 10, 10);  // 1600 bytes
        EXPECT_GT(world.waiting_seconds(), waiting);
        const double before = world.waiting_seconds();
        exchange(world, {"rows"}, 90, 100);
        EXPECT_GT(world.seconds(), seconds);
        EXPECT_EQ(world.waiting_seconds(), before);
    });
}

TEST(RunRanks, GivesEveryThreadItsContext) {
    std::atomic<int> seen = 0;
    run_ranks(4, [&](Communicator& world) {
        EXPECT_EQ(run_context().rank, world.rank());
        EXPECT_EQ(run_context().world_size, 4);
        EXPECT_EQ(world.topology().ranks_per_node, 4);
        seen += 1 << (4 * world.rank());
    });
    EXPECT_EQ(seen, 0x1111);
}

TEST(RunRanks, RethrowsTheCauseAndStopsTheOthers) {
    std::atomic<int> stopped = 0;
    const std::string text = failure_of(4, [&](Communicator& world) {
        const auto pair = world.split(world.rank() / 2, 0, "pair");
        if (world.rank() == 2) throw Error("the disk is full");
        try {
            pair->barrier({"pair"});   // rank 3 waits for rank 2
            world.barrier({"world"});  // ranks 0 and 1 wait for the others
        } catch (const AbortedError& aborted) {
            EXPECT_THAT(aborted.what(), HasSubstr("rank 2 failed: the disk is full"));
            ++stopped;
            throw;
        }
    });
    EXPECT_EQ(text, "the disk is full");
    EXPECT_EQ(stopped, 3);
}

TEST(RunRanks, PrefersACauseThatComesLate) {
    const std::string text = failure_of(2, [](Communicator& world) {
        if (world.rank() == 0) world.barrier({"wait"});  // fails first, but only because of rank 1
        world.abort("giving up");
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        throw Error("the cause");
    });
    EXPECT_EQ(text, "the cause");
}

TEST(RunRanks, PassesOtherKindsOfErrorOn) {
    EXPECT_THROW(run_ranks(2,
                           [](Communicator& world) {
                               if (world.rank() == 1) throw UserError("wrong key");
                               world.barrier({"start"});
                           }),
                 UserError);
}

TEST(ThreadCommunicator, NamesWhatTimedOut) {
    const auto start = std::chrono::steady_clock::now();
    const std::string text = failure_of(
        3,
        [](Communicator& world) {
            run_context().step = 118;
            const auto experts = world.split(0, world.rank(), "experts");
            if (world.rank() == 1) {
                std::this_thread::sleep_for(std::chrono::milliseconds(500));
                return;
            }
            exchange(*experts, {"dispatch", 5});
        },
        0.2);
    EXPECT_THAT(text,
                testing::MatchesRegex("rank [02] of 3, step 118: no answer for 0.2 s in all_to_all_rows "
                                      "'dispatch, layer 5' on communicator 'experts'; still awaited: "
                                      "rank 1"));
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(ThreadCommunicator, NamesTheSenderThatDidNotCome) {
    const std::string text = failure_of(
        2,
        [](Communicator& world) {
            HostStreamScheduler scheduler(StreamMode::inline_execution);
            const auto stream = scheduler.make_stream("test");
            double value = 0;
            if (world.rank() == 0) world.recv(*stream, view_of(&value, {1}), 1, {"activations", 2});
        },
        0.2);
    EXPECT_THAT(text, HasSubstr("no answer for 0.2 s in recv 'activations, layer 2'"));
    EXPECT_THAT(text, HasSubstr("still awaited: rank 1"));
}

/// Every rank has to see an Error, not an AbortedError, that contains both texts.
void expect_disagreement(int ranks, const std::function<void(Communicator&)>& body, const std::string& one,
                         const std::string& other) {
    std::atomic<int> named = 0;
    failure_of(ranks, [&](Communicator& world) {
        try {
            body(world);
        } catch (const AbortedError&) {
            throw;
        } catch (const Error& failure) {
            EXPECT_THAT(failure.what(), AllOf(HasSubstr(one), HasSubstr(other)));
            ++named;
            world.barrier({"nobody gets through"});
        }
    });
    EXPECT_EQ(named, ranks);
}

TEST(ThreadCommunicator, NamesBothSidesOfADisagreement) {
    const auto at = [](int rank) { return [rank](Communicator& world) { return world.rank() == rank; }; };
    expect_disagreement(
        4, [&](Communicator& world) { at(2)(world) ? world.barrier({"step"}) : exchange(world, {"step"}); },
        "rank 0 calls all_to_all_rows 'step'", "rank 2 calls barrier 'step'");
    expect_disagreement(
        3,
        [&](Communicator& world) {
            exchange(world, at(1)(world) ? Label{"combine", 3} : Label{"combine", 4});
        },
        "'combine, layer 4'", "rank 1 calls all_to_all_rows 'combine, layer 3'");
    expect_disagreement(
        3, [&](Communicator& world) { exchange(world, {"width"}, 1, at(2)(world) ? 5 : 4); },
        "with 32 bytes per row", "rank 2 calls all_to_all_rows 'width' with 40 bytes per row");
    expect_disagreement(
        2, [&](Communicator& world) { exchange(world, {"counts"}, 3, 1, at(0)(world) ? 3 : 2); },
        "rows in all_to_all_rows 'counts'", "sends 3 to rank 1, which expects 2");
}

TEST(ThreadCommunicator, AbortWakesWhoeverWaits) {
    std::atomic<int> woken = 0;
    EXPECT_THROW(run_ranks(3,
                           [&](Communicator& world) {
                               if (world.rank() == 0) {
                                   std::this_thread::sleep_for(std::chrono::milliseconds(50));
                                   world.abort("stop requested");
                                   return;
                               }
                               try {
                                   exchange(world, {"step"});
                               } catch (const AbortedError& aborted) {
                                   EXPECT_THAT(aborted.what(), HasSubstr("rank 0 failed: stop requested"));
                                   ++woken;
                                   throw;
                               }
                           }),
                 AbortedError);
    EXPECT_EQ(woken, 2);
}

}  // namespace
}  // namespace moesaic
