// Messages between ranks, through the program's own communicator.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "launch/doctor/measure.h"
#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kSamples = 21;
constexpr double kSecondsPerMeasurement = 0.15;

class MessageBench {
  public:
    explicit MessageBench(Communicator& world) : world_(world), stream_(scheduler_.make_stream("doctor")) {}

    struct Seconds {
        double best = 0, median = 0;
    };

    /// Collective over the world: there and back between ranks 0 and `peer`, `bytes` a multiple of 8; the
    /// others wait.
    Seconds ping_pong(int peer, i64 bytes) {
        std::vector<i64> data(static_cast<std::size_t>(bytes / 8));
        const TensorView view = view_of(data.data(), {bytes / 8});
        return measure([&] {
            if (world_.rank() == 0) {
                world_.send(*stream_, view, peer, {"doctor: ping"});
                world_.recv(*stream_, view, peer, {"doctor: pong"});
            } else if (world_.rank() == peer) {
                world_.recv(*stream_, view, 0, {"doctor: ping"});
                world_.send(*stream_, view, 0, {"doctor: pong"});
            }
        });
    }

    /// Collective over the world: `bytes` (a multiple of 8) from each rank to each.
    Seconds all_to_all(i64 bytes) {
        const auto ranks = static_cast<std::size_t>(world_.size());
        std::vector<i64> send(ranks * static_cast<std::size_t>(bytes / 8)), recv(send.size());
        const std::vector<i64> rows(ranks, 1);
        const Shape shape{world_.size(), bytes / 8};
        return measure([&] {
            world_.all_to_all_rows(*stream_, view_of(send.data(), shape), rows, view_of(recv.data(), shape),
                                   rows, {"doctor: all-to-all"});
        });
    }

  private:
    /// Seconds per call, as the slowest rank sees them; samples of several calls where one is short.
    template <class Call>
    Seconds measure(const Call& call) {
        const auto timed = [&](int calls) {
            world_.barrier({"doctor: sample"});
            const auto start = Clock::now();
            for (int i = 0; i < calls; ++i) call();
            return slowest(std::chrono::duration<double>(Clock::now() - start).count()) / calls;
        };
        double once = timed(1);
        once = std::min(once, timed(3));
        const double per_sample = kSecondsPerMeasurement / kSamples;
        const int calls =
            static_cast<int>(std::clamp(std::ceil(per_sample / std::max(once, 1e-9)), 1.0, 1e4));
        const int samples = static_cast<int>(
            std::clamp(2 * kSecondsPerMeasurement / (once * calls), 3.0, static_cast<double>(kSamples)));
        std::vector<double> seconds;
        for (int i = 0; i < samples; ++i) seconds.push_back(timed(calls));
        std::ranges::sort(seconds);
        return {seconds.front(), seconds[seconds.size() / 2]};
    }

    /// The largest of all ranks' values, the same everywhere, so that all decide alike from it.
    double slowest(double seconds) {
        world_.all_reduce(*stream_, view_of(&seconds, {1}), ReduceOp::max, {"doctor: slowest"});
        return seconds;
    }

    Communicator& world_;
    HostStreamScheduler scheduler_{StreamMode::inline_execution};
    std::unique_ptr<Stream> stream_;
};

Finding message_row(const std::string& name, double value, const char* unit, const std::string& more) {
    Finding row{.section = "measured", .name = name, .value = value, .unit = unit};
    row.found = fmt::format("{:8.3g} {:<7} {}", value, unit, more);
    return row;
}

void measure_pair(MessageBench& bench, int peer, const std::string& where, Findings& rows) {
    const auto small = bench.ping_pong(peer, 8);
    rows.push_back(
        message_row("8 B, " + where, small.best * 0.5e6, "us",
                    fmt::format("(median {:.3g})  one way, ranks 0 and {}", small.median * 0.5e6, peer)));
    constexpr double kBytes = 1 << 20;
    const auto large = bench.ping_pong(peer, i64{1} << 20);
    const double rate = kBytes / (large.best / 2) * 1e-9;
    rows.push_back(message_row(
        "1 MiB, " + where, rate, "GB/s",
        fmt::format("(median {:.3g})  one way, ranks 0 and {}", kBytes / (large.median / 2) * 1e-9, peer)));
}

}  // namespace

Findings measure_messages(Communicator& world, const std::vector<std::string>& hosts) {
    Findings rows;
    if (world.size() < 2) return rows;
    MessageBench bench(world);
    const auto peer_where = [&](bool same_node) {
        const auto found = std::find_if(hosts.begin() + 1, hosts.end(), [&](const std::string& host) {
            return (host == hosts.front()) == same_node;
        });
        return found == hosts.end() ? -1 : static_cast<int>(found - hosts.begin());
    };
    if (const int peer = peer_where(true); peer > 0) measure_pair(bench, peer, "same node", rows);
    if (const int peer = peer_where(false); peer > 0) measure_pair(bench, peer, "two nodes", rows);
    const i64 most = std::max<i64>(1024, (i64{256} << 20) / world.size());
    for (const i64 wanted : {i64{64} << 10, i64{1} << 20}) {
        const i64 bytes = std::min(wanted, most) / 8 * 8;
        const auto time = bench.all_to_all(bytes);
        const double sent = static_cast<double>(bytes) * (world.size() - 1) * 1e-9;
        rows.push_back(message_row("all-to-all, " + bytes_text(static_cast<double>(bytes)), sent / time.best,
                                   "GB/s",
                                   fmt::format("(median {:.3g})  sent by each rank to the {} others",
                                               sent / time.median, world.size() - 1)));
    }
    return rows;
}

}  // namespace moesaic
