// What ranks remember of their collectives, and what several ranks' records say of a hang.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "comm/flight_log.h"
#include "comm/thread_communicator.h"
#include "launch/flight_watch.h"

namespace moesaic {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(FlightRecorder, KeepsTheLastCollectivesAndWhatIsUnderWay) {
    FlightRecorder recorder(4);
    const int world = recorder.join("world", {0, 1}), experts = recorder.join("experts", {1});
    for (int layer = 0; layer < 5; ++layer) {
        const FlightRecorder::Scope done(
            recorder, {.group = world, .verb = "all_gather_rows", .operation = "counts", .layer = layer});
    }
    const FlightRecorder::Scope open(recorder, {.group = experts, .verb = "barrier", .operation = "split"});
    const FlightLog log = recorder.log();
    ASSERT_EQ(log.records.size(), 4U);
    EXPECT_EQ(log.records.front().sequence, 2);
    EXPECT_EQ(log.records.front().text(), "all_gather_rows 'counts, layer 2'");
    EXPECT_FALSE(log.records[2].under_way());
    EXPECT_TRUE(log.records[3].under_way());
    EXPECT_EQ(log.records[3].sequence, 0);
    EXPECT_EQ(log.groups[0].entered, 5);
}

TEST(FlightRecorder, ACollectiveThatFailsStaysUnderWay) {
    FlightRecorder recorder;
    const int world = recorder.join("world", {0, 1});
    try {
        const FlightRecorder::Scope scope(recorder, {.group = world, .verb = "barrier", .operation = "x"});
        throw 1;
    } catch (int) {
    }
    EXPECT_TRUE(recorder.log().records.back().under_way());
}

TEST(FlightLog, IsReadBackAsItWasWritten) {
    FlightRecorder recorder;
    const int world = recorder.join("world", {0, 1, 5});
    {
        const FlightRecorder::Scope scope(recorder, {.group = world,
                                                     .verb = "all_to_all_rows",
                                                     .operation = "dispatch",
                                                     .layer = 3,
                                                     .rows = 17,
                                                     .row_bytes = 512,
                                                     .shape = 77});
    }
    const std::string text = to_text(recorder.log());
    const FlightLog log = read_flight_log(text, "here");
    EXPECT_EQ(to_text(log), text);
    EXPECT_EQ(log.groups[0].world_ranks, (std::vector<int>{0, 1, 5}));
    EXPECT_EQ(log.records[0].text(), "all_to_all_rows 'dispatch, layer 3'");
    EXPECT_EQ(log.records[0].rows, 17);
    EXPECT_EQ(log.records[0].shape, 77U);
}

TEST(FlightLog, WhatIsNoneIsNamedWithItsLine) {
    const auto mistake = [](const std::string& text) -> std::string {
        try {
            (void)read_flight_log(text, "flight.rank0.txt");
        } catch (const UserError& error) {
            return error.what();
        }
        return "";
    };
    EXPECT_THAT(mistake(""), HasSubstr("no flight log"));
    const std::string good = "Moesaic flight log 1\nrank\t0\t1\thost\t1.5\ngroup\tworld\t1\t0 1\n";
    EXPECT_EQ(mistake(good), "");
    EXPECT_THAT(mistake(good + "record\t0\tx"), HasSubstr("flight.rank0.txt:4: 'x' is not a number"));
    EXPECT_THAT(mistake(good + "record\t0\t1"), HasSubstr("too few columns"));
    EXPECT_THAT(mistake(good + "record\t1\t0\ta\tb\t0\t0\t0\t0\t0\t0\t0\t0"), HasSubstr("no group 1"));
    EXPECT_THAT(mistake(good + "wing\t1"), HasSubstr("'wing' is none of"));
}

/// Logs of ranks of one world that have entered these collectives, the last of which does not end.
std::map<int, FlightLog> logs_of(const std::vector<std::vector<const char*>>& operations) {
    std::map<int, FlightLog> logs;
    std::vector<int> ranks;
    for (std::size_t rank = 0; rank < operations.size(); ++rank) ranks.push_back(static_cast<int>(rank));
    for (const int rank : ranks) {
        FlightRecorder recorder(3);
        const int world = recorder.join("world", ranks);
        const auto& mine = operations[static_cast<std::size_t>(rank)];
        for (std::size_t i = 0; i + 1 < mine.size(); ++i) {
            const FlightRecorder::Scope scope(recorder,
                                              {.group = world, .verb = "broadcast", .operation = mine[i]});
        }
        const FlightRecorder::Scope last(recorder,
                                         {.group = world, .verb = "broadcast", .operation = mine.back()});
        logs[rank] = recorder.log();
    }
    return logs;
}

TEST(HangDiagnosis, NamesTheFirstCollectiveThatDiffers) {
    const auto logs = logs_of({{"a", "b", "c"}, {"a", "x", "y"}, {"a", "b", "c"}});
    EXPECT_THAT(diagnose_hang(logs, 3),
                AllOf(HasSubstr("collective 1 of 'world'"), HasSubstr("rank 1 is in broadcast 'x'"),
                      HasSubstr("ranks 0, 2 are in broadcast 'b'")));
}

TEST(HangDiagnosis, SaysWhenTheRecordsDoNotReachBack) {
    const auto logs = logs_of({{"a", "b", "c", "d", "e"}, {"x", "b", "c", "d", "e"}});
    EXPECT_THAT(diagnose_hang(logs, 2), HasSubstr("parted before collective 2"));
}

TEST(HangDiagnosis, NamesWhoHasNotComeAndWhereHeIs) {
    const auto logs = logs_of({{"a", "b", "c"}, {"a", "b"}, {"a", "b", "c"}});
    EXPECT_THAT(diagnose_hang(logs, 3),
                AllOf(HasSubstr("rank 1 has not come to broadcast 'c' (collective 2 of 'world')"),
                      HasSubstr("where ranks 0, 2 have waited"), HasSubstr("it has been in broadcast 'b'")));
}

TEST(HangDiagnosis, NamesWhoLeftNoRecord) {
    auto logs = logs_of({{"a", "b"}, {"a", "b"}, {"a", "b"}});
    EXPECT_THAT(diagnose_hang(logs, 3), AllOf(HasSubstr("ranks 0-2 have been in broadcast 'b'")));
    logs.erase(2);
    EXPECT_THAT(diagnose_hang(logs, 3), AllOf(HasSubstr("rank 2 left no record"),
                                              HasSubstr("ranks 0, 1 have been in broadcast 'b'")));
}

/// The whole way: a rank that computes for ever is named by those that wait for it, with a file of every
/// rank.
TEST(FlightWatch, ATimeOutIsExplainedOutOfEveryRanksRecords) {
    namespace fs = std::filesystem;
    const std::string folder = ::testing::TempDir() + "flight_watch";
    fs::remove_all(folder);
    fs::create_directories(folder);
    std::string said;
    try {
        run_ranks(
            3,
            [&](Communicator& world) {
                world.set_timeout_seconds(5);
                FlightWatch watch(world, folder);
                const auto experts = world.split(0, world.rank(), "experts");
                world.set_timeout_seconds(0.4);
                world.barrier({"first"});
                if (world.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(2));
                experts->barrier({"second", 4});
            },
            5);
    } catch (const std::exception& error) {
        said = error.what();
    }
    EXPECT_THAT(said,
                AllOf(HasSubstr("still awaited: rank 1"),
                      HasSubstr("rank 1 has not come to barrier 'second, layer 4'"),
                      HasSubstr("it has been outside of collectives after barrier 'first' of 'world'")));
    for (const char* rank : {"0", "1", "2"})
        EXPECT_TRUE(fs::exists(folder + "/flight.rank" + rank + ".txt")) << rank;
    // The next run begins with a clean folder, and the old records are kept.
    run_ranks(2, [&](Communicator& world) { const FlightWatch watch(world, folder); });
    EXPECT_FALSE(fs::exists(folder + "/flight.rank0.txt"));
    EXPECT_TRUE(fs::exists(folder + "/flight.earlier/flight.rank0.txt"));
}

}  // namespace
}  // namespace moesaic
