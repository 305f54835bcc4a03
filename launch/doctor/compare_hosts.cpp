// Hosts ask each other: the leaders, the first rank of each, speak for them.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/doctor/gather_texts.h"
#include "launch/doctor/hosts.h"
#include "runtime/machine/memory_facts.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

constexpr i64 kFirstBytes = i64{256} << 10, kMessageBytes = i64{4} << 20;
constexpr double kSecondsPerSample = 0.03;
constexpr int kSamples = 3, kPings = 12, kMostPings = 1000;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}
i64 wall_nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

/// Messages between two ranks, each half called by one of them.
class HostTalk {
  public:
    explicit HostTalk(Communicator& world) : world_(world), stream_(scheduler_.make_stream("doctor")) {}

    struct ClockOffset {
        double seconds = 0, error = 0;
    };
    /// How far the clock of `peer`, which calls tell_clock, is ahead; from the shortest of several questions.
    ClockOffset ask_clock(int peer) {
        ClockOffset best{0, std::numeric_limits<double>::infinity()};
        for (int i = 0; i < kPings; ++i) {
            i64 theirs = 0;
            const i64 before = wall_nanoseconds();
            send_number(peer, 0);
            theirs = recv_number(peer);
            const i64 after = wall_nanoseconds();
            const double error = 0.5e-9 * static_cast<double>(after - before);
            if (error < best.error) best = {1e-9 * static_cast<double>(theirs - before) - error, error};
        }
        return best;
    }
    void tell_clock(int peer) {
        for (int i = 0; i < kPings; ++i) {
            (void)recv_number(peer);
            send_number(peer, wall_nanoseconds());
        }
    }

    /// What this rank sends to `peer`, which calls take; places are left open.
    HostLink give(int peer) {
        HostLink link;
        link.latency_seconds = std::numeric_limits<double>::infinity();
        // The shortest of many: a host that is busy answers late now and then.
        const auto begin = Clock::now();
        for (int i = 0; i < kPings || (seconds_since(begin) < kSecondsPerSample && i < kMostPings); ++i) {
            const auto start = Clock::now();
            send_number(peer, i);
            (void)recv_number(peer);
            link.latency_seconds = std::min(link.latency_seconds, seconds_since(start) / 2);
        }
        send_number(peer, -1);
        const auto rate_of = [&](i64 bytes, i64 messages) {
            double best = std::numeric_limits<double>::infinity();
            for (int i = 0; i < kSamples; ++i) best = std::min(best, give_bytes(peer, bytes, messages));
            return static_cast<double>(bytes * messages) / std::max(best - link.latency_seconds, 1e-9);
        };
        link.bytes_per_second = rate_of(kFirstBytes, 1);
        const double whole = static_cast<double>(kMessageBytes) / link.bytes_per_second;
        // A slow link has said what it is worth.
        const i64 messages =
            whole > 10 * kSecondsPerSample
                ? 0
                : static_cast<i64>(std::clamp(std::ceil(kSecondsPerSample / whole), 1.0, 64.0));
        send_number(peer, messages);
        if (messages > 0)
            link.bytes_per_second = std::max(link.bytes_per_second, rate_of(kMessageBytes, messages));
        return link;
    }
    void take(int peer) {
        while (recv_number(peer) >= 0) send_number(peer, 0);
        for (int i = 0; i < kSamples; ++i) take_bytes(peer, kFirstBytes, 1);
        const i64 messages = recv_number(peer);
        for (int i = 0; i < kSamples && messages > 0; ++i) take_bytes(peer, kMessageBytes, messages);
    }

  private:
    void send_number(int peer, i64 number) {
        world_.send(*stream_, view_of(&number, {1}), peer, {"doctor: number"});
        stream_->synchronize();
    }
    i64 recv_number(int peer) {
        i64 number = 0;
        world_.recv(*stream_, view_of(&number, {1}), peer, {"doctor: number"});
        stream_->synchronize();
        return number;
    }
    double give_bytes(int peer, i64 bytes, i64 messages) {
        buffer_.resize(static_cast<std::size_t>(kMessageBytes / 8));
        const auto start = Clock::now();
        for (i64 i = 0; i < messages; ++i)
            world_.send(*stream_, view_of(buffer_.data(), {bytes / 8}), peer, {"doctor: rows"});
        (void)recv_number(peer);
        return seconds_since(start);
    }
    void take_bytes(int peer, i64 bytes, i64 messages) {
        buffer_.resize(static_cast<std::size_t>(kMessageBytes / 8));
        for (i64 i = 0; i < messages; ++i)
            world_.recv(*stream_, view_of(buffer_.data(), {bytes / 8}), peer, {"doctor: rows"});
        send_number(peer, 0);
    }

    Communicator& world_;
    HostStreamScheduler scheduler_{StreamMode::inline_execution};
    std::unique_ptr<Stream> stream_;
    std::vector<i64> buffer_;
};

/// A file that goes when this does.
class Marker {
  public:
    Marker(const std::string& folder, const std::string& host) {
        path_ =
            fs::path(folder) / fmt::format(".moesaic-doctor.{}.{}.{}", host, ::getpid(), wall_nanoseconds());
        written_ = static_cast<bool>(std::ofstream(path_) << host << std::flush);
    }
    ~Marker() {
        std::error_code error;
        fs::remove(path_, error);
    }
    Marker(const Marker&) = delete;
    Marker& operator=(const Marker&) = delete;
    [[nodiscard]] std::string name() const { return written_ ? path_.filename().string() : ""; }

  private:
    fs::path path_;
    bool written_ = false;
};

/// The first rank of every host, in the order of their numbers.
std::vector<int> leaders_of(const std::vector<std::string>& hosts) {
    std::vector<int> leaders;
    for (std::size_t i = 0; i < hosts.size(); ++i) {
        if (std::find(hosts.begin(), hosts.begin() + static_cast<std::ptrdiff_t>(i), hosts[i]) ==
            hosts.begin() + static_cast<std::ptrdiff_t>(i))
            leaders.push_back(static_cast<int>(i));
    }
    return leaders;
}

/// Collective over the world. By host, on rank 0; elsewhere zeros.
std::vector<HostTalk::ClockOffset> compare_clocks(Communicator& world, HostTalk& talk,
                                                  const std::vector<int>& leaders) {
    std::vector<HostTalk::ClockOffset> offsets(leaders.size());
    for (std::size_t host = 1; host < leaders.size(); ++host) {
        if (world.rank() == 0) offsets[host] = talk.ask_clock(leaders[host]);
        if (world.rank() == leaders[host]) talk.tell_clock(0);
    }
    return offsets;
}

/// Collective over the world. Links that this rank's host sends on.
std::vector<HostLink> measure_links(Communicator& world, HostTalk& talk, const std::vector<int>& leaders) {
    const auto hosts = static_cast<int>(leaders.size());
    const auto self = std::ranges::find(leaders, world.rank());
    const int me = self == leaders.end() ? -1 : static_cast<int>(self - leaders.begin());
    std::vector<HostLink> links;
    for (int round = 0; round < link_rounds(hosts); ++round) {
        world.barrier({"doctor: links"});
        const int other = me < 0 ? -1 : link_partner(hosts, round, me);
        if (other < 0) continue;
        const int peer = leaders[static_cast<std::size_t>(other)];
        for (const bool lower_sends : {true, false}) {
            if ((me < other) != lower_sends) {
                talk.take(peer);
                continue;
            }
            HostLink link = talk.give(peer);
            link.from = me;
            link.to = other;
            links.push_back(link);
        }
    }
    world.barrier({"doctor: links measured"});
    return links;
}

Json host_report(bool sees_folder, const std::vector<HostLink>& links, const std::string& folder) {
    Json report{{"sees_folder", sees_folder}, {"folder", folder}};
    report["interfaces"] = Json::array();
    for (const NetworkInterface& one : read_network_interfaces())
        report["interfaces"].push_back(
            {one.name, one.address, one.prefix, one.mtu, one.megabits_per_second.value_or(0)});
    report["links"] = Json::array();
    for (const HostLink& one : links)
        report["links"].push_back({one.from, one.to, one.bytes_per_second, one.latency_seconds});
    return report;
}

void read_report(const std::string& text, HostFacts& host, std::vector<HostLink>& links) {
    const Json report = Json::parse(text);
    host.sees_folder = report.at("sees_folder");
    host.folder = report.at("folder");
    for (const Json& one : report.at("interfaces")) {
        NetworkInterface interface {
            one[0], one[1], one[2], one[3], {}
        };
        if (one[4] > 0) interface.megabits_per_second = one[4].get<i64>();
        host.interfaces.push_back(std::move(interface));
    }
    for (const Json& one : report.at("links")) links.push_back({one[0], one[1], one[2], one[3]});
}

}  // namespace

int link_rounds(int hosts) {
    return hosts - 1 + hosts % 2;
}

int link_partner(int hosts, int round, int me) {
    // The last player stands still; the others meet whose numbers add up to twice the round. An odd number of
    // hosts has a last player that is not there.
    const int rounds = link_rounds(hosts), last = rounds;
    if (me == last) return round;
    const int other = ((2 * round - me) % rounds + rounds) % rounds;
    if (other != me) return other;
    return last < hosts ? last : -1;
}

HostComparison compare_hosts(Communicator& world, const std::vector<std::string>& hosts,
                             const std::string& out, bool quick) {
    HostComparison comparison;
    const std::vector<int> leaders = leaders_of(hosts);
    if (leaders.size() < 2) return comparison;
    HostTalk talk(world);
    const auto offsets = compare_clocks(world, talk, leaders);
    const auto space = disk_space(out);
    const std::string folder = space ? space->folder : "";
    std::unique_ptr<Marker> marker;
    if (world.rank() == 0) marker = std::make_unique<Marker>(folder, hosts.front());
    const std::string name = gather_texts(world, marker ? marker->name() : "").front();
    std::error_code error;
    const bool sees_folder = name.empty() || fs::exists(fs::path(folder) / name, error);
    std::vector<HostLink> links;
    if (!quick) links = measure_links(world, talk, leaders);
    const auto reports = gather_texts(
        world, host_report(sees_folder, links, folder).dump(-1, ' ', false, Json::error_handler_t::replace));
    if (world.rank() != 0) return comparison;
    comparison.folder_written = !name.empty();
    for (std::size_t i = 0; i < leaders.size(); ++i) {
        const auto leader = static_cast<std::size_t>(leaders[i]);
        HostFacts host;
        host.name = hosts[leader];
        host.ranks = static_cast<int>(std::ranges::count(hosts, host.name));
        host.clock_seconds = offsets[i].seconds;
        host.clock_error = offsets[i].error;
        read_report(reports[leader], host, comparison.links);
        comparison.hosts.push_back(std::move(host));
    }
    return comparison;
}

}  // namespace moesaic
