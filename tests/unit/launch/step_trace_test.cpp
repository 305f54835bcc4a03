// Who is slowest and why, and the timeline of a step as a file.
#include "launch/step_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "comm/thread_communicator.h"
#include "launch/slowest_rank.h"

namespace moesaic {
namespace {

OwnWork work_of(double attention, double experts, double other = 0) {
    OwnWork work{};
    work[static_cast<std::size_t>(WorkPhase::attention)] = attention;
    work[static_cast<std::size_t>(WorkPhase::experts)] = experts;
    work.back() = other;
    return work;
}

TEST(SlowestRank, IsNamedWithWhatItTakesLongestFor) {
    const std::vector<OwnWork> ranks{work_of(1, 1), work_of(1, 4), work_of(1.5, 1)};
    const auto slowest = find_slowest_rank(ranks);
    ASSERT_TRUE(slowest);
    EXPECT_EQ(slowest->rank, 1);
    EXPECT_EQ(slowest->phase, "experts");
    EXPECT_NEAR(slowest->excess_seconds, 5 - 9.5 / 3, 1e-12);
}

TEST(SlowestRank, WorkOfNoPhaseIsWorkToo) {
    const auto slowest = find_slowest_rank(std::vector<OwnWork>{work_of(1, 1, 3), work_of(1.1, 1.1)});
    ASSERT_TRUE(slowest);
    EXPECT_EQ(slowest->rank, 0);
    EXPECT_EQ(slowest->phase, "other");
}

TEST(SlowestRank, NobodyWhereNothingWasSeen) {
    EXPECT_FALSE(find_slowest_rank(std::vector<OwnWork>(3)));
}

TEST(SlowestRank, IsTheSameOnEveryRank) {
    std::mutex mutex;
    std::vector<i64> named;
    run_ranks(4, [&](Communicator& world) {
        HostStreamScheduler scheduler(StreamMode::inline_execution);
        const auto stream = scheduler.make_stream("exchange");
        const auto all = gather_work(world, *stream, work_of(1, world.rank() == 2 ? 3 : 1));
        const std::lock_guard lock(mutex);
        named.push_back(find_slowest_rank(all)->rank);
    });
    EXPECT_EQ(named, std::vector<i64>(4, 2));
}

/// Two ranks; rank 1 computes longer, and rank 0 waits for it.
std::vector<RankTrace> two_ranks() {
    RankTrace fast{0, "here", 10.0, 10.010, {}, {}}, slow{1, "there", 10.001, 10.010, {}, {}};
    fast.work = {{WorkPhase::experts, 2, false, 10.001, 10.002}};
    slow.work = {{WorkPhase::experts, 2, true, 10.001, 10.006}};
    fast.collectives = {{"dispatch, layer 2", "experts of rank 0, 7", 5, 64, 10.002, 10.008},
                        {"trace", "", 1, 8, 10.008, 10.009}};
    slow.collectives = {{"dispatch, layer 2", "experts of rank 0, 7", 5, 64, 10.006, 10.008}};
    return {fast, slow};
}

std::vector<nlohmann::json> events_named(const nlohmann::json& trace, const std::string& name) {
    std::vector<nlohmann::json> found;
    for (const auto& event : trace["traceEvents"]) {
        if (event["name"] == name) found.push_back(event);
    }
    return found;
}

TEST(ChromeTrace, HasWorkCollectivesAndWhoIsWaitedFor) {
    const auto trace = nlohmann::json::parse(chrome_trace(118, two_ranks()));
    const auto waits = events_named(trace, "wait for rank 1");
    ASSERT_EQ(waits.size(), 1u);
    EXPECT_EQ(waits[0]["pid"], 0);
    EXPECT_EQ(waits[0]["cat"], "wait");
    EXPECT_NEAR(waits[0]["ts"].get<double>(), 2000, 1e-3);
    EXPECT_NEAR(waits[0]["dur"].get<double>(), 4000, 1e-3);
    EXPECT_TRUE(events_named(trace, "wait for rank 0").empty());
    EXPECT_EQ(events_named(trace, "step 118").size(), 2u);
    EXPECT_EQ(events_named(trace, "experts, layer 2").size(), 1u);
    const auto backward = events_named(trace, "experts backward, layer 2");
    ASSERT_EQ(backward.size(), 1u);
    EXPECT_EQ(backward[0]["pid"], 1);
    EXPECT_NEAR(backward[0]["dur"].get<double>(), 5000, 1e-3);
    const auto sent = events_named(trace, "dispatch, layer 2");
    ASSERT_EQ(sent.size(), 2u);
    EXPECT_EQ(sent[0]["args"]["rows"], 5);
    EXPECT_NE(sent[0]["tid"], backward[0]["tid"]) << "one track for work, one for collectives";
    const auto names = events_named(trace, "process_name");
    ASSERT_EQ(names.size(), 2u);
    EXPECT_EQ(names[1]["args"]["name"], "rank 1 on there");
}

TEST(ChromeTrace, TimesCountFromTheFirstRanksBeginning) {
    const auto trace = nlohmann::json::parse(chrome_trace(1, two_ranks()));
    for (const auto& event : trace["traceEvents"]) {
        if (event["ph"] != "X") continue;
        EXPECT_GE(event["ts"].get<double>(), 0);
        EXPECT_LE(event["ts"].get<double>() + event["dur"].get<double>(), 10001);
    }
}

}  // namespace
}  // namespace moesaic
