// `moesaic bench`: the form of its tables and JSON, its gates, and that #wrong and the straggler table see
// what they are for.
#include <cmath>
#include <fstream>
#include <sstream>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

const std::vector<Ranks> kRanks{kAlone, threads(2), threads(3), mpirun(2), mpirun(4)};

Words alltoall(const Words& more) {
    Words words{"bench", "alltoall", "-n", "2", "-w", "1"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

/// Lines of a table that are no comments, in words.
std::vector<Words> rows_of(const std::string& text) {
    std::vector<Words> rows;
    for (const std::string& line : lines_of(text)) {
        if (line.empty() || line[0] == '#') continue;
        std::istringstream stream(line);
        Words words;
        for (std::string word; stream >> word;) words.push_back(word);
        rows.push_back(std::move(words));
    }
    return rows;
}

std::vector<Json> objects_of(const std::string& text) {
    std::vector<Json> objects;
    for (const std::string& line : lines_of(text)) {
        if (!line.empty()) objects.push_back(Json::parse(line));
    }
    return objects;
}

TEST(BenchAlltoall, LooksLikeNcclTests) {
    for (const Ranks& ranks : kRanks) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result = moesaic(alltoall({"-b", "1K", "-e", "16K", "-f", "4"}), ranks);
        ASSERT_EQ(result.code, 0) << result.text();
        EXPECT_EQ(result.err, "");
        const std::vector<Words> rows = rows_of(result.out);
        ASSERT_EQ(rows.size(), 3u) << result.out;
        i64 size = 1024;
        for (const Words& row : rows) {
            ASSERT_EQ(row.size(), 21u);
            EXPECT_NEAR(std::stod(row[0]), static_cast<double>(size), 100) << "not what was asked for";
            EXPECT_EQ(std::stoll(row[0]), std::stoll(row[1]) * 4 * ranks.count) << "count is per pair";
            EXPECT_EQ(row[2] + row[3] + row[4], "floatnone-1");
            const double algbw = std::stod(row[6]), factor = (ranks.count - 1.0) / ranks.count;
            EXPECT_NEAR(std::stod(row[7]), algbw * factor, 0.011);
            EXPECT_EQ(row[8], "0");
            for (int column = 9; column < 13; ++column)
                EXPECT_EQ(row[static_cast<std::size_t>(column)], "N/A");
            EXPECT_EQ(row[18], "1.00");
            size *= 4;
        }
        for (const char* text : {"# Collective test starting:",
                                 "minBytes 1024 maxBytes 16384 step: 4(factor) warmup "
                                 "iters: 1 iters: 2 agg iters: 1 validation: 1",
                                 "redop    root     time   algbw   busbw  #wrong", "#  Rank  0 Group  0 Pid",
                                 "# Out of bounds values : 0 OK", "# Avg bus bandwidth    : "})
            EXPECT_EQ(occurrences(result.out, text), 1) << text;
    }
}

TEST(BenchAlltoall, CountsAndVerifiesEveryTraffic) {
    const ScratchFolder scratch;
    for (const Ranks& ranks : {threads(2), threads(4), mpirun(4)}) {
        if (!can_run(ranks)) continue;
        for (const char* traffic :
             {"uniform", "random", "zipf:1.2", "lognormal:1", "hot_expert:1", "hot_rank:0.9", "ragged",
              "empty_rank", "rotating:1", "burst:1,period=2", "spread:1"}) {
            SCOPED_TRACE(name_of(ranks) + " " + traffic);
            const CommandResult result =
                moesaic(alltoall({"-b", "16", "-e", "4K", "-f", "16", "--json", "--traffic", traffic,
                                  "--ranks-per-node", "2", "--dtype", "bf16"}),
                        ranks);
            ASSERT_EQ(result.code, 0) << result.text();
            const std::vector<Json> lines = objects_of(result.out);
            ASSERT_EQ(lines.size(), 3u);
            for (const Json& line : lines) {
                EXPECT_EQ(line.at("bench"), "alltoall");
                EXPECT_EQ(line.at("wrong"), 0);
                EXPECT_EQ(line.at("nodes"), ranks.count / 2);
                EXPECT_LE(line.at("time_us").at("min"), line.at("time_us").at("p99"));
                EXPECT_GE(line.at("imbalance"), 1.0);
                if (ranks.count == 2) {
                    EXPECT_EQ(line.at("cross_node_bytes"), 0);
                }
            }
        }
    }
}

TEST(BenchAlltoall, HotRankIsCountedToTheByte) {
    const CommandResult result = moesaic(alltoall({"-b", "64K", "-e", "64K", "--traffic", "hot_rank:1,rank=3",
                                                   "--ranks-per-node", "2", "--json"}),
                                         threads(4));
    ASSERT_EQ(result.code, 0) << result.text();
    const Json line = objects_of(result.out).at(0);
    EXPECT_EQ(line.at("size"), 4 * 65536);  // rank 3 receives all that four ranks send
    EXPECT_EQ(line.at("self_bytes"), 65536);
    EXPECT_EQ(line.at("same_node_bytes"), 65536);
    EXPECT_EQ(line.at("cross_node_bytes"), 2 * 65536);
    EXPECT_EQ(line.at("imbalance"), 4.0);
    EXPECT_EQ(line.at("tokens"), 1024);
}

TEST(BenchAlltoall, WrongFires) {
    for (const Ranks& ranks : {kAlone, threads(3), mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const CommandResult result =
            moesaic(alltoall({"-b", "4K", "-e", "4K", "--plant-fault", "5", "-c", "2"}), ranks);
        expect_failure(result, 3, {"bench alltoall: 10 elements are wrong"});
        EXPECT_EQ(rows_of(result.out).at(0).at(8), "10");
        EXPECT_EQ(occurrences(result.out, "# Out of bounds values : 10 FAILED"), 1);
    }
    const CommandResult unchecked =
        moesaic(alltoall({"-b", "4K", "-e", "4K", "--plant-fault", "5", "-c", "0"}));
    EXPECT_EQ(unchecked.code, 0) << unchecked.text();
    EXPECT_EQ(rows_of(unchecked.out).at(0).at(8), "N/A");
}

TEST(BenchAlltoall, GatesEndWithThree) {
    const Words size{"-b", "4K", "-e", "4K", "--traffic", "zipf:2"};
    const auto with = [&](const Words& gate) {
        Words words = alltoall(size);
        words.insert(words.end(), gate.begin(), gate.end());
        return moesaic(words, threads(2));
    };
    EXPECT_EQ(
        with({"--min-busbw", "0", "--min-algbw", "0", "--max-p99-us", "1e9", "--max-imbalance", "9"}).code,
        0);
    expect_failure(with({"--min-busbw", "1e9"}), 3, {"less than --min-busbw 1e+09"});
    expect_failure(with({"--min-algbw", "1e9"}), 3, {"less than --min-algbw 1e+09"});
    expect_failure(with({"--max-p99-us", "0.001"}), 3, {"more than --max-p99-us 0.001"});
    expect_failure(with({"--max-imbalance", "1.1"}), 3, {"more than --max-imbalance 1.1"});
}

TEST(BenchAlltoall, MatricesGoOutAndComeBack) {
    const ScratchFolder scratch;
    const std::string file = scratch / "matrix";
    ASSERT_EQ(moesaic(alltoall({"-b", "960", "-e", "960", "--traffic", "spread:1", "--matrix-out", file}),
                      threads(4))
                  .code,
              0);
    EXPECT_EQ(read_text(file), "0 160 320 480\n480 0 160 320\n320 480 0 160\n160 320 480 0\n");
    const CommandResult back = moesaic(alltoall({"--traffic", "matrix:" + file, "--json"}), threads(4));
    ASSERT_EQ(back.code, 0) << back.text();
    EXPECT_EQ(objects_of(back.out).at(0).at("size"), 960);
    EXPECT_EQ(objects_of(back.out).at(0).at("same_node_bytes"), 4 * 960);
    // What a routing decided, replayed as bytes.
    const Words routed =
        alltoall({"-b", "64K", "-e", "64K", "--traffic", "zipf:1.5", "--json", "--matrix-out", file});
    const CommandResult first = moesaic(routed, threads(4));
    const CommandResult second = moesaic(alltoall({"--traffic", "matrix:" + file, "--json"}), threads(4));
    ASSERT_EQ(second.code, 0) << second.text();
    for (const char* field : {"size", "self_bytes", "same_node_bytes"})
        EXPECT_EQ(objects_of(first.out).at(0).at(field), objects_of(second.out).at(0).at(field)) << field;
    std::ofstream(file) << "1 2\n3\n";
    expect_failure(moesaic(alltoall({"--traffic", "matrix:" + file}), threads(2)), 2,
                   {":2: 1 numbers, where the first line has 2"});
}

TEST(BenchAlltoall, WritesTheJsonOfNcclTests) {
    const ScratchFolder scratch;
    const std::string file = scratch / "result.json";
    const Words words = alltoall({"-b", "1K", "-e", "2K", "-f", "2", "-J", file});
    for (const Ranks& ranks : {mpirun(2), threads(2)}) {
        if (!can_run(ranks)) continue;
        ASSERT_EQ(moesaic(words, ranks).code, 0);
    }
    const Json document = Json::parse(read_text(file));
    EXPECT_EQ(document.at("version"), 3);
    EXPECT_EQ(document.at("config").at("minimum_bytes"), 1024);
    EXPECT_EQ(document.at("config").at("step_factor"), 2);
    EXPECT_EQ(document.at("config").at("devices").size(), 2u);
    EXPECT_EQ(document.at("results").size(), 2u);
    const Json& result = document.at("results").at(0);
    EXPECT_EQ(result.at("size"), 1024);
    EXPECT_EQ(result.at("out_of_place").at("nwrong"), 0.0);
    EXPECT_TRUE(result.at("in_place").is_null());
    EXPECT_EQ(result.at("out_of_place_per_iter").at("per_process_max_times_us").size(), 2u);
    EXPECT_EQ(result.at("out_of_place_per_iter").at("times_us").size(), 2u);
    EXPECT_EQ(result.at("moe").at("same_node_bytes"), 1024);
    EXPECT_EQ(document.at("out_of_bounds").at("okay"), "true");
    EXPECT_EQ(document.at("average_bus_bandwidth").at("okay"), "unchecked");
    for (const auto& entry : document.at("env")) EXPECT_EQ(occurrences(entry.get<std::string>(), "HOME="), 0);
    if (have_mpi()) {
        EXPECT_EQ(Json::parse(read_text(file + ".0")).at("version"), 3) << "the first was replaced";
    }
}

TEST(BenchAlltoall, NamesTheSlowRank) {
    for (const Ranks& ranks : {threads(4), mpirun(2)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const Words words = alltoall({"-b", "1K", "-e", "1K", "--stragglers", "--plant-slow-rank", "1",
                                      "--plant-slow-by", "300000", "--ranks-per-node", "2"});
        const CommandResult result = moesaic(words, ranks);
        ASSERT_EQ(result.code, 0) << result.text();
        EXPECT_EQ(occurrences(result.out, "<- slow"), ranks.count == 4 ? 2 : 1)
            << result.out;  // and its host
        EXPECT_GE(occurrences(result.out, "rank 1 ("), 1) << result.out;
    }
    expect_failure(moesaic(alltoall({"--plant-slow-rank", "1"})), 2,
                   {"--plant-slow-rank: needs --stragglers"});
}

TEST(BenchAlltoall, MistakesAllAtOnce) {
    expect_failure(
        moesaic(alltoall({"-b", "1Q", "-e", "zero", "-i", "0", "--dtype", "fp8", "--traffic", "zip:1"}),
                have_mpi() ? mpirun(2) : kAlone),
        2,
        {"-b: '1Q' is no size", "-e: 'zero' is no size", "-i: '0' is no size", "--dtype: 'fp8'",
         "did you mean 'zipf'?"});
    expect_failure(moesaic(alltoall({"-b", "2K", "-e", "1K"})), 2,
                   {"-e: 1024 bytes are less than -b, 2048 bytes"});
    expect_failure(moesaic(alltoall({"--experts", "9"}), threads(2)), 2,
                   {"--experts: 9 do not divide among 2 ranks"});
    expect_failure(moesaic(alltoall({"--traffic", "hot_rank:0.5,ranks=4"}), threads(2)), 2,
                   {"4 ranks are stated, and 2"});
}

TEST(BenchDispatch, MovesAndVerifiesEveryTraffic) {
    for (const Ranks& ranks : {kAlone, threads(3), mpirun(2), mpirun(4)}) {
        if (!can_run(ranks)) continue;
        for (const char* traffic : {"uniform", "zipf:2", "ragged", "empty_rank", "hot_expert:1"}) {
            if (ranks.count == 1 && std::string(traffic) == "empty_rank") continue;
            SCOPED_TRACE(name_of(ranks) + " " + traffic);
            const CommandResult result =
                moesaic({"bench", "dispatch", "--tokens", "1,50", "--width", "24", "-n", "2", "-w", "1",
                         "--json", "--traffic", traffic, "--ranks-per-node", "2"},
                        ranks);
            ASSERT_EQ(result.code, 0) << result.text();
            const std::vector<Json> lines = objects_of(result.out);
            ASSERT_EQ(lines.size(), 2u);
            for (const Json& line : lines) {
                EXPECT_EQ(line.at("wrong"), 0);
                EXPECT_EQ(line.at("ranks"), ranks.count);
                for (const char* field :
                     {"plan_us", "dispatch_us", "combine_us", "combine_backward_us", "dispatch_backward_us",
                      "algbw_gbs", "memcpy_gbs", "memcpy_fraction"})
                    EXPECT_GT(line.at(field), 0.0) << field;
                EXPECT_LE(line.at("busbw_gbs"), line.at("algbw_gbs"));
                const bool processes = ranks.kind == Ranks::Kind::mpirun;
                EXPECT_EQ(line.contains("speedup_over_mpi"), processes) << "beside MPI where there is MPI";
                if (processes) {
                    EXPECT_GT(line.at("mpi_alltoallv_us"), 0.0);
                }
            }
            // Four ways; alone there is no communicator that rows go through.
            if (ranks.count == 1) continue;
            const i64 bytes = lines[1].at("self_bytes").get<i64>() +
                              lines[1].at("same_node_bytes").get<i64>() +
                              lines[1].at("cross_node_bytes").get<i64>();
            const i64 ranks_with_tokens = ranks.count - (std::string(traffic) == "empty_rank" ? 1 : 0);
            EXPECT_EQ(bytes, 4 * ranks_with_tokens * 50 * 2 * 24 * 4);
        }
    }
}

TEST(BenchDispatch, EveryExchangeOfTheTable) {
    const CommandResult result =
        moesaic({"bench", "dispatch", "--tokens", "40", "--width", "16", "-n", "1", "--json", "--top-k", "4",
                 "--exchange", "flat,hierarchical,dedup", "--ranks-per-node", "2"},
                threads(4));
    ASSERT_EQ(result.code, 0) << result.text();
    const std::vector<Json> lines = objects_of(result.out);
    ASSERT_EQ(lines.size(), 3u);
    for (const Json& line : lines) EXPECT_EQ(line.at("wrong"), 0) << line.at("exchange");
    EXPECT_EQ(lines[0].at("cross_node_bytes"), lines[1].at("cross_node_bytes"));
    EXPECT_LT(lines[2].at("cross_node_bytes"), lines[0].at("cross_node_bytes"));
}

TEST(BenchDispatch, WrongAndGatesFire) {
    const Words words{"bench", "dispatch", "--tokens", "64", "--width", "16", "-n", "1"};
    const auto with = [&](const Words& more) {
        Words all = words;
        all.insert(all.end(), more.begin(), more.end());
        return moesaic(all, threads(2));
    };
    const CommandResult wrong = with({"--plant-fault", "4"});
    expect_failure(wrong, 3, {"bench dispatch: 4 elements are wrong"});
    EXPECT_EQ(rows_of(wrong.out).at(0).size(), 24u) << wrong.out;
    EXPECT_EQ(rows_of(wrong.out).at(0).at(20), "4");
    expect_failure(with({"--min-memcpy-fraction", "99"}), 3, {"less than --min-memcpy-fraction 99"});
    expect_failure(with({"--min-busbw", "1e9"}), 3, {"less than --min-busbw 1e+09"});
    expect_failure(with({"--exchange", "flat,nearest"}), 2,
                   {"--exchange: 'nearest' is no exchange; there are auto, flat"});
    EXPECT_EQ(with({"--stragglers", "--dtype", "bf16"}).code, 0);
}

TEST(BenchStep, TellsWhereTheTimeGoes) {
    for (const Ranks& ranks : {kAlone, threads(2), mpirun(4)}) {
        if (!can_run(ranks)) continue;
        SCOPED_TRACE(name_of(ranks));
        const Words words{"bench", "step", "configs/tiny.yaml", "-n", "2", "-w", "1", "--set", "run.seed=4"};
        Words json = words;
        json.push_back("--json");
        const CommandResult result = moesaic(json, ranks);
        ASSERT_EQ(result.code, 0) << result.text();
        const Json line = objects_of(result.out).at(0);
        EXPECT_EQ(line.at("wrong"), 0);
        double sum = 0;
        for (const auto& [name, us] : line.at("phases_us").items()) sum += us.get<double>();
        EXPECT_EQ(line.at("phases_us").size(), 6u);
        EXPECT_EQ(line.at("phases_us").at("waiting for ranks") == 0, ranks.count == 1);
        // Means over ranks and iterations are at most the slowest rank's worst iteration.
        EXPECT_LE(sum, line.at("time_us").at("p99").get<double>() * 1.001);
        EXPECT_GT(sum, 0.2 * line.at("time_us").at("min").get<double>());
        EXPECT_EQ(line.at("exchange_bytes") == 0, ranks.count == 1);
        EXPECT_GT(line.at("tokens_per_s"), 0);
        Words table = words;
        table.insert(table.end(), {"--stragglers", "--dtype", "bf16"});
        const CommandResult shown = moesaic(table, ranks);
        ASSERT_EQ(shown.code, 0) << shown.text();
        EXPECT_EQ(rows_of(shown.out).at(0).size(), 13u);
        EXPECT_EQ(occurrences(shown.out, "# exchange of rows"), 1);
        EXPECT_EQ(occurrences(shown.out, "# waiting for ranks"), 1);
        EXPECT_EQ(occurrences(shown.out, "# Stragglers           : "), 1);
    }
    expect_failure(moesaic({"bench", "step", "configs/tiny.yaml", "-n", "1", "--min-tokens-per-s", "1e12"}),
                   3, {"less than --min-tokens-per-s 1e+12"});
    EXPECT_EQ(moesaic({"bench", "step", "configs/absent.yaml"}).code, 2);
}

TEST(BenchStep, LossIsThatOfTraining) {
    const ScratchFolder scratch;
    const std::vector<Json> records =
        train_tiny(scratch / "out", kAlone, {"train.steps=6", "train.log_every=1"});
    const CommandResult result =
        moesaic({"bench", "step", "configs/tiny.yaml", "-n", "2", "-w", "1", "--json"}, threads(2));
    ASSERT_EQ(result.code, 0) << result.text();
    const double before = losses(records).at(2), after = losses(records).at(3);
    EXPECT_NEAR(objects_of(result.out).at(0).at("loss"), after, std::abs(after - before) / 10);
}

TEST(BenchLayer, AcceptsTheZooAndEveryType) {
    for (const char* dtype : {"fp32", "bf16", "fp64"}) {
        for (const char* traffic : {"random", "uniform", "hot_rank:1", "zipf:1"}) {
            SCOPED_TRACE(std::string(dtype) + " " + traffic);
            const CommandResult result =
                moesaic({"bench", "layer", "--tokens", "96", "--width", "48", "--hidden", "64", "-n", "1",
                         "-w", "0", "--json", "--dtype", dtype, "--traffic", traffic},
                        threads(2));
            ASSERT_EQ(result.code, 0) << result.text();
            EXPECT_EQ(objects_of(result.out).at(0).at("wrong"), 0);
        }
    }
}

TEST(BenchLayer, WrongFires) {
    for (const char* dtype : {"fp32", "bf16"}) {
        expect_failure(moesaic({"bench", "layer", "--tokens", "96", "--width", "48", "--hidden", "64", "-n",
                                "1", "-w", "0", "--dtype", dtype, "--plant-fault", "3"},
                               threads(2)),
                       3, {"bench layer: 3 values are wrong"});
    }
}

TEST(BenchStep, WrongFires) {
    expect_failure(moesaic({"bench", "step", "configs/tiny.yaml", "-n", "3", "-w", "1", "--set",
                            "optimizer.lr=1e6", "--set", "optimizer.weight_decay=0"}),
                   3, {"bench step: 3 steps had a loss that is not finite"});
}

/// `auto` beside what it can choose from: the line, the object and the gate.
TEST(BenchDispatch, JudgesWhatAutoTakes) {
    const Words words{"bench", "dispatch", "--tokens", "64",         "--width",
                      "16",    "-n",       "2",        "--exchange", "auto,flat,shared_memory"};
    const auto with = [&](const Words& more) {
        Words all = words;
        all.insert(all.end(), more.begin(), more.end());
        return moesaic(all, threads(2));
    };
    const CommandResult shown = with({"--max-auto-loss", "1e6"});
    ASSERT_EQ(shown.code, 0) << shown.text();
    EXPECT_EQ(occurrences(shown.out, "# auto took "), 1) << shown.out;
    EXPECT_EQ(occurrences(shown.out, ", chosen by measurement of 64 tokens a rank: flat "), 1) << shown.out;
    const std::vector<Json> lines = objects_of(with({"--json"}).out);
    ASSERT_EQ(lines.size(), 4u);
    EXPECT_EQ("auto:" + lines[3].at("auto").get<std::string>(), lines[0].at("exchange"));
    EXPECT_GE(lines[3].at("loss"), 0.0);
    expect_failure(with({"--max-auto-loss", "-1"}), 3, {"more than --max-auto-loss -1"});
}

}  // namespace
}  // namespace moesaic::e2e
