// What watches a run from outside: event files, the page for Prometheus, the timeline of a step, the slowest
// rank.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "tests/e2e/command.h"

namespace moesaic::e2e {
namespace {

Words event_files(const std::string& run) {
    Words files;
    for (const auto& entry : std::filesystem::directory_iterator(run + "/tensorboard"))
        files.push_back(entry.path());
    return files;
}

TEST(Watching, EventFilesBesideTheRecords) {
    const ScratchFolder scratch;
    const std::string out = scratch / "out", run = out + "/tiny";
    const Words sinks{"metrics.sinks=[jsonl, tensorboard]", "train.steps=6", "train.log_every=2",
                      "train.checkpoint_every=2"};
    (void)train_tiny(out, threads(2), sinks);
    ASSERT_EQ(event_files(run).size(), 1u);
    const std::string file = read_text(event_files(run)[0]);
    for (const char* tag : {"brain.Event:2", "train/loss", "speed/step_ms", "eval/heldout_loss",
                            "load/layer_01", "run/config", "bounds/heldout"})
        EXPECT_NE(file.find(tag), std::string::npos) << tag;
    (void)train_tiny(out, threads(2), {sinks[0], "train.steps=8", "train.log_every=2"}, {"--resume", "auto"});
    EXPECT_EQ(event_files(run).size(), 2u);
}

TEST(Watching, PrometheusIsToldWhere) {
    const ScratchFolder scratch;
    const std::string out = scratch / "out";
    const CommandResult result = moesaic(
        tiny(out, {"metrics.sinks=[jsonl, prometheus]", "metrics.prometheus.port=0", "train.steps=5"}));
    if (result.err.find("'prometheus' is not in this build") != std::string::npos)
        GTEST_SKIP() << "a build without prometheus-cpp";
    ASSERT_EQ(result.code, 0) << result.text();
    EXPECT_NE(read_text(out + "/tiny/log.rank0.txt").find("Prometheus: http://127.0.0.1:"),
              std::string::npos);
    expect_failure(moesaic(tiny(out, {"metrics.prometheus.address=everywhere"})), 2,
                   {"metrics.prometheus.address: 'everywhere' is no address by number; "});
}

/// Listens on a port of this machine while it lives.
class TakenPort {
  public:
    TakenPort() : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
        address_.sin_family = AF_INET;
        address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address_;
        EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address_), size), 0);
        EXPECT_EQ(::listen(socket_, 1), 0);
        EXPECT_EQ(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address_), &size), 0);
    }
    TakenPort(const TakenPort&) = delete;
    TakenPort& operator=(const TakenPort&) = delete;
    ~TakenPort() { ::close(socket_); }
    [[nodiscard]] std::string number() const { return std::to_string(ntohs(address_.sin_port)); }

  private:
    int socket_;
    sockaddr_in address_{};
};

TEST(Watching, APortThatIsTakenLeavesTheEarlierRunWhereItIs) {
    const ScratchFolder scratch;
    const std::string out = scratch / "out";
    const auto before = train_tiny(out, kAlone, {"train.steps=5"});
    const TakenPort taken;
    const CommandResult result = moesaic(tiny(out, {"metrics.sinks=[jsonl, prometheus]", "train.steps=5",
                                                    "metrics.prometheus.port=" + taken.number()}));
    if (result.err.find("'prometheus' is not in this build") == std::string::npos)
        expect_failure(result, 2, {"metrics.prometheus: cannot listen on 127.0.0.1 port " + taken.number()});
    EXPECT_FALSE(std::filesystem::exists(out + "/tiny.old-1"));
    EXPECT_EQ(read_records(out + "/tiny"), before);
}

void expect_timeline(const Ranks& ranks) {
    const ScratchFolder scratch;
    const std::string out = scratch / "out";
    // Of shared memory the timeline has only the meetings that somebody waits in.
    const Words small{"train.steps=6", "train.log_every=1", "parallel.exchange=flat",
                      "parallel.bucket_bytes=1"};
    const auto traced = train_tiny(out, ranks, small, {"--trace-step", "3"});
    EXPECT_EQ(losses(traced), losses(train_tiny(scratch / "plain", ranks, small)))
        << "watching changes nothing";
    const Json trace = Json::parse(read_text(out + "/tiny/trace.step3.json"));
    std::map<std::string, std::set<int>> seen;              // category to ranks
    std::map<int, double> work, step;                       // microseconds by rank
    std::map<std::string, std::pair<double, double>> span;  // on rank 0: first and last begin by name
    for (const Json& event : trace["traceEvents"]) {
        if (event["ph"] != "X") continue;
        const int rank = event["pid"];
        seen[event["cat"]].insert(rank);
        if (event["cat"] == "compute") work[rank] += event["dur"].get<double>();
        if (event["cat"] == "step") step[rank] = event["dur"];
        EXPECT_GE(event["dur"].get<double>(), 0) << event;
        if (rank != 0) continue;
        const double at = event["ts"];
        auto& [first, last] = span.try_emplace(event["name"], at, at).first->second;
        first = std::min(first, at);
        last = std::max(last, at);
    }
    // The last micro-step's gradients of the head are summed while attention works, behind the layer's rows.
    const double gradients = span.at("gradients").first;
    EXPECT_LT(span.at("dispatch backward, layer 1").second, gradients);
    EXPECT_LT(gradients, span.at("attention backward, layer 1").second);
    EXPECT_LT(gradients, span.at("dispatch backward, layer 0").second);
    std::set<int> all;
    for (int rank = 0; rank < ranks.count; ++rank) all.insert(rank);
    EXPECT_EQ(seen["compute"], all);
    EXPECT_EQ(seen["exchange"], all);
    EXPECT_EQ(seen["step"], all);
    for (const int rank : all) {
        EXPECT_GT(work[rank], 0);
        EXPECT_LE(work[rank], step[rank]) << "spans that overlap, or that are not of this step";
    }
    const std::string text = trace.dump();
    for (const char* name :
         {"attention, layer 0", "experts backward, layer 1", "dispatch, layer 1", "update"})
        EXPECT_NE(text.find(name), std::string::npos) << name;
}

TEST(Watching, TheTimelineOfAStepAsThreads) {
    expect_timeline(threads(4));
}

TEST(Watching, TheTimelineOfAStepUnderMpirun) {
    if (!have_mpi()) GTEST_SKIP() << "a build without MPI";
    expect_timeline(mpirun(2));
}

TEST(Watching, AStepThatNeverComesIsAMistake) {
    const ScratchFolder scratch;
    expect_failure(moesaic(tiny(scratch / "out", {}, {"--trace-step", "500"})), 2,
                   {"--trace-step 500: the run ends with step 20"});
}

TEST(Watching, TheSlowestRankIsNamed) {
    const ScratchFolder scratch;
    // One sequence, and every rank has all experts: rank 0 alone has work.
    const auto records = train_tiny(scratch / "out", threads(2),
                                    {"train.batch_sequences=1", "task.data.seq_len=512", "model.width=64",
                                     "parallel.expert=1", "train.steps=6", "train.log_every=3"});
    for (const Json& step : events(records, "step")) {
        EXPECT_EQ(step["slowest_rank"], 0) << step;
        EXPECT_GT(step["slowest_excess_ms"].get<double>(), 0);
        EXPECT_NE(step["slowest_phase"], "");
    }
    for (const Json& step : events(train_tiny(scratch / "alone", kAlone, {"train.steps=5"}), "step"))
        EXPECT_TRUE(step["slowest_rank"].is_null()) << "nobody to be slower than";
}

}  // namespace
}  // namespace moesaic::e2e
