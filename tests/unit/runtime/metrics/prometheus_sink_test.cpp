// The page that Prometheus fetches: what stands on it, who can reach it, and that its own tool accepts it.
// The server's threads take two seconds to end, asleep; hence the time of each case.
#include "runtime/metrics/prometheus_sink.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "runtime/base/build_flags.h"
#include "runtime/base/error.h"
#include "runtime/config/config.h"
#include "tests/support/source_folder.h"
#include "tests/unit/runtime/scratch_folder.h"

namespace moesaic {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string fetch(int port) {
    const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    EXPECT_EQ(::connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const std::string request = "GET /metrics HTTP/1.0\r\n\r\n";
    EXPECT_EQ(::send(descriptor, request.data(), request.size(), 0), std::ssize(request));
    std::string answer;
    char part[4096];
    for (ssize_t got; (got = ::recv(descriptor, part, sizeof part, 0)) > 0;)
        answer.append(part, static_cast<std::size_t>(got));
    ::close(descriptor);
    EXPECT_THAT(answer, HasSubstr("200 OK"));
    return answer.substr(answer.find("\r\n\r\n") + 4);
}

SinkOptions options_of_test() {
    SinkOptions options;
    options.name = "quad";
    options.prometheus_listen = PrometheusConfig().address + ":0";  // where it listens unless told otherwise
    return options;
}

/// One record of each kind.
void write_records(PrometheusSink& sink) {
    RunRecord run;
    run.version = "1.2";
    run.device = "cpu";
    run.world_size = 4;
    sink.write(run);
    StepRecord step;
    step.step = 10;
    step.tokens = 500;
    step.loss = 2.5;
    step.loss_aux = 4.25;
    step.loss_z = 0.5;
    step.grad_norm = 0.75;
    step.lr = 0.001;
    step.tokens_per_s = 1e4;
    step.step_ms = 250;
    step.exchange_ms = 25;
    step.exchange_bytes = 1 << 20;
    step.flops_utilization = 0.375;
    step.load_max_over_mean = 1.5;
    step.rank_load_max_over_mean = 1.25;
    step.dropped_fraction = 0;
    step.memory_bytes = 1 << 30;
    step.slowest_rank = 3;
    step.slowest_excess_ms = 12.5;
    step.bounds["prequential"].value = 0.625;
    sink.write(step);
    ExpertsRecord experts;
    experts.layer = 1;
    experts.max_over_mean = 1.5;
    experts.evenness = 0.875;
    experts.dead = 2;
    experts.router_entropy = 1.75;
    sink.write(experts);
    EvalRecord evaluation;
    evaluation.step = 10;
    evaluation.heldout_loss = 2.75;
    evaluation.train_probe_loss = 2.5;
    evaluation.gap = 0.25;
    evaluation.heldout_error = 0.5;
    sink.write(evaluation);
    AlarmRecord alarm;
    alarm.kind = "dead_experts";
    sink.write(alarm);
    sink.write(alarm);
    CheckpointRecord checkpoint;
    checkpoint.step = 10;
    checkpoint.bytes = 4096;
    checkpoint.seconds = 0.5;
    sink.write(checkpoint);
}

class PrometheusPage : public ::testing::Test {
  protected:
    void SetUp() override {
        if (!kHavePrometheus) GTEST_SKIP() << "a build without prometheus-cpp";
    }
};

TEST_F(PrometheusPage, HasTheNewestNumbersInBaseUnits) {
    PrometheusSink sink(options_of_test());
    write_records(sink);
    const std::string page = fetch(sink.port());
    for (const char* line :
         {"moesaic_step{run=\"quad\"} 10\n", "moesaic_loss{run=\"quad\"} 2.5\n",
          "moesaic_step_seconds{run=\"quad\"} 0.25\n", "moesaic_exchange_bytes{run=\"quad\"} 1048576\n",
          "moesaic_tokens_total{run=\"quad\"} 500\n", "moesaic_ranks{run=\"quad\"} 4\n",
          "moesaic_bound{run=\"quad\",bound=\"prequential\"} 0.625\n",
          "moesaic_layer_load_max_over_mean_ratio{run=\"quad\",layer=\"1\"} 1.5\n",
          "moesaic_layer_idle_experts{run=\"quad\",layer=\"1\"} 2\n",
          "moesaic_heldout_loss{run=\"quad\"} 2.75\n",
          "moesaic_slowest_excess_seconds{run=\"quad\"} 0.0125\n",
          "moesaic_alarms_total{run=\"quad\",kind=\"dead_experts\"} 2\n",
          "moesaic_checkpoint_bytes{run=\"quad\"} 4096\n", "# TYPE moesaic_loss gauge\n",
          "# TYPE moesaic_tokens_total counter\n"})
        EXPECT_THAT(page, HasSubstr(line));
}

TEST_F(PrometheusPage, NumbersFollowTheRun) {
    PrometheusSink sink(options_of_test());
    StepRecord step;
    step.step = 1;
    step.tokens = 100;
    sink.write(step);
    EXPECT_THAT(fetch(sink.port()), Not(HasSubstr("moesaic_gradient_norm"))) << "which was not measured";
    step.step = 2;
    step.tokens = 250;
    step.grad_norm = 3;
    sink.write(step);
    const std::string page = fetch(sink.port());
    EXPECT_THAT(page, HasSubstr("moesaic_step{run=\"quad\"} 2\n"));
    EXPECT_THAT(page, HasSubstr("moesaic_tokens_total{run=\"quad\"} 250\n"));
    EXPECT_THAT(page, HasSubstr("moesaic_gradient_norm{run=\"quad\"} 3\n"));
}

TEST_F(PrometheusPage, IsForThisMachineAlone) {
    const PrometheusSink sink(options_of_test());
    std::ostringstream port;
    port << ':' << std::hex << std::uppercase << std::setw(4) << std::setfill('0') << sink.port();
    int found = 0;
    std::istringstream sockets(read_text("/proc/self/net/tcp") + read_text("/proc/self/net/tcp6"));
    constexpr const char* kListening = "0A";
    for (std::string line; std::getline(sockets, line);) {
        std::istringstream words(line);
        std::string number, local, remote, state;
        words >> number >> local >> remote >> state;
        if (state != kListening || !local.ends_with(port.str())) continue;
        ++found;
        EXPECT_EQ(local, "0100007F" + port.str());  // 127.0.0.1
    }
    EXPECT_EQ(found, 1);
}

TEST_F(PrometheusPage, ATakenPortIsTheUsersMistake) {
    const PrometheusSink first(options_of_test());
    SinkOptions second = options_of_test();
    second.prometheus_listen = "127.0.0.1:" + std::to_string(first.port());
    try {
        const PrometheusSink sink(second);
        FAIL() << "two sinks on one port";
    } catch (const UserError& error) {
        EXPECT_THAT(error.what(),
                    HasSubstr("cannot listen on 127.0.0.1 port " + std::to_string(first.port())));
        EXPECT_THAT(error.what(), HasSubstr("metrics.prometheus.port"));
    }
}

TEST_F(PrometheusPage, PromtoolHasNothingToSay) {
    if (std::system("command -v promtool >/dev/null") != 0)
        GTEST_SKIP() << "no promtool: apt-get install prometheus";
    PrometheusSink sink(options_of_test());
    write_records(sink);
    const ScratchFolder folder;
    write_text(folder / "page", fetch(sink.port()));
    const std::string command = "promtool check metrics < " + folder / "page" + " > " + folder / "said 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0);
    EXPECT_EQ(read_text(folder / "said"), "");
}

/// Whoever takes a name off the page has to take it off the dashboard.
TEST_F(PrometheusPage, HasWhatTheDashboardShows) {
    PrometheusSink sink(options_of_test());
    write_records(sink);
    const std::string page = fetch(sink.port());
    const auto dashboard =
        nlohmann::json::parse(read_text(std::string(MOESAIC_SOURCE_DIR) + "/launch/cluster/grafana.json"));
    std::set<std::string> shown;
    static const std::regex name("moesaic_[a-z_]+");
    for (const auto& panel : dashboard["panels"]) {
        for (const auto& target : panel.value("targets", nlohmann::json::array())) {
            const std::string query = target["expr"];
            for (std::sregex_iterator at(query.begin(), query.end(), name), end; at != end; ++at)
                shown.insert(at->str());
        }
    }
    EXPECT_GT(shown.size(), 15u);
    for (const std::string& one : shown) EXPECT_THAT(page, HasSubstr("# TYPE " + one + " ")) << one;
}

TEST(PrometheusStub, SaysWhatIsMissing) {
    if (kHavePrometheus) GTEST_SKIP() << "a build with prometheus-cpp";
    EXPECT_THROW(PrometheusSink{options_of_test()}, UserError);
}

}  // namespace
}  // namespace moesaic
