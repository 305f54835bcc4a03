// Rows about hosts that differ, and the tables of hosts and links.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "launch/doctor/hosts.h"

namespace moesaic {

namespace {

constexpr double kClockSeconds = 1;    // beyond this, clocks differ
constexpr double kSlowShare = 0.5;     // of what good links reach
constexpr double kLateFactor = 10;     // times the latency of good links,
constexpr double kLateSeconds = 1e-3;  // and above this
constexpr std::size_t kHostsInTable = 16;

using Hosts = std::vector<HostFacts>;

Finding host_row(const char* name, std::string found) {
    return {.section = "hosts", .name = name, .found = std::move(found)};
}
Finding odd_row(const char* name, FindingStatus status, std::string found, std::string advice) {
    Finding row = host_row(name, std::move(found));
    row.status = status;
    row.advice = std::move(advice);
    return row;
}

std::string seconds_text(double seconds) {
    const double size = std::abs(seconds);
    return size < 1e-3 ? fmt::format("{:.0f} us", seconds * 1e6)
           : size < 1  ? fmt::format("{:.1f} ms", seconds * 1e3)
                       : fmt::format("{:.2f} s", seconds);
}

/// The middle clock: of two hosts rank 0's.
double common_clock(const Hosts& hosts) {
    std::vector<double> clocks;
    for (const HostFacts& host : hosts) clocks.push_back(host.clock_seconds);
    if (clocks.size() == 2) return clocks.front();
    std::ranges::sort(clocks);
    return clocks[clocks.size() / 2];
}

Findings check_clocks(const Hosts& hosts) {
    const double common = common_clock(hosts);
    Findings rows;
    double widest = 0;
    for (const HostFacts& host : hosts) {
        const double off = host.clock_seconds - common;
        widest = std::max(widest, std::abs(off) + host.clock_error);
        if (std::abs(off) <= kClockSeconds) continue;
        rows.push_back(odd_row(
            "clocks", FindingStatus::warning,
            fmt::format("{} is {} {} {}", host.name, seconds_text(std::abs(off)),
                        off > 0 ? "ahead of" : "behind",
                        hosts.size() == 2 ? hosts.front().name : "the others"),
            fmt::format(
                "logs, file times and Slurm's credentials disagree: on {} timedatectl set-ntp true, or "
                "chronyc makestep",
                host.name)));
    }
    if (rows.empty())
        rows.push_back(host_row("clocks", fmt::format("within {} of each other", seconds_text(widest))));
    return rows;
}

Findings check_folder(const HostComparison& comparison) {
    const Hosts& hosts = comparison.hosts;
    const std::string& folder = hosts.front().folder;
    if (!comparison.folder_written)
        return {odd_row("run folder", FindingStatus::warning,
                        fmt::format("whether all hosts share {} is not known: {} cannot write there", folder,
                                    hosts.front().name),
                        "--out names the folder that runs will be written to")};
    Findings rows;
    for (const HostFacts& host : hosts) {
        if (host.sees_folder) continue;
        const std::string where =
            host.folder == folder ? folder : fmt::format("{} (there {})", folder, host.folder);
        rows.push_back(
            odd_row("run folder", FindingStatus::failed,
                    fmt::format("{} does not see what {} writes to {}", host.name, hosts.front().name, where),
                    fmt::format("every rank writes its shard of a checkpoint: mount the same file "
                                "system on {}, or --out a folder that all share",
                                host.name)));
    }
    if (rows.empty()) rows.push_back(host_row("run folder", folder + " is shared by all"));
    return rows;
}

/// By network: which hosts are in it, by their places.
std::map<std::string, std::set<std::size_t>> members_of_networks(const Hosts& hosts) {
    std::map<std::string, std::set<std::size_t>> members;
    for (std::size_t i = 0; i < hosts.size(); ++i) {
        for (const NetworkInterface& one : hosts[i].interfaces) members[network_of(one)].insert(i);
    }
    return members;
}

/// Interfaces with one address on several hosts, as bridges of containers have: Open MPI may try to reach
/// another host by them, and hang.
Findings check_same_addresses(const Hosts& hosts, const std::string& wanted) {
    std::map<std::string, std::pair<std::string, int>> owners;  // name of the interface, how many
    for (const HostFacts& host : hosts) {
        for (const NetworkInterface& one : host.interfaces) {
            auto& owner = owners[fmt::format("{}/{}", one.address, one.prefix)];
            owner.first = one.name;
            ++owner.second;
        }
    }
    Findings rows;
    for (const auto& [address, owner] : owners) {
        if (owner.second < 2) continue;
        rows.push_back(
            odd_row("networks", FindingStatus::warning,
                    fmt::format("{} has the address {} on {} hosts", owner.first, address, owner.second),
                    fmt::format("a job that tries it hangs: --mca btl_tcp_if_include {0} --mca "
                                "oob_tcp_if_include {0}",
                                wanted)));
    }
    return rows;
}

/// Hosts whose value of an interface in `network` is not the most frequent one.
Findings check_property(const Hosts& hosts, const std::string& network, const char* what,
                        i64 (*value_of)(const NetworkInterface&), const std::string& advice) {
    std::map<i64, int> votes;
    std::vector<std::tuple<std::string, std::string, i64>> values;  // host, interface, value
    for (const HostFacts& host : hosts) {
        for (const NetworkInterface& one : host.interfaces) {
            if (network_of(one) != network || value_of(one) == 0) continue;
            values.emplace_back(host.name, one.name, value_of(one));
            ++votes[value_of(one)];
        }
    }
    Findings rows;
    if (votes.size() < 2) return rows;
    // Among equals the larger value: it is the smaller that slows the others down.
    const auto common = std::ranges::max_element(votes, [](const auto& left, const auto& right) {
                            return std::pair(left.second, left.first) < std::pair(right.second, right.first);
                        })->first;
    for (const auto& [host, interface, value] : values) {
        if (value == common) continue;
        rows.push_back(
            odd_row("networks", FindingStatus::warning,
                    fmt::format("{} of {} has {} {}, the others {}", interface, host, what, value, common),
                    fmt::format(fmt::runtime(advice), interface, common)));
    }
    return rows;
}

Findings check_networks(const Hosts& hosts) {
    const auto members = members_of_networks(hosts);
    std::vector<std::string> common;
    for (const auto& [network, here] : members) {
        if (here.size() == hosts.size()) common.push_back(network);
    }
    if (common.empty()) {
        // Routers may lie between; whoever is alone in every network of his is worth a look.
        std::vector<std::string> alone;
        for (std::size_t i = 0; i < hosts.size(); ++i) {
            if (std::ranges::none_of(members, [&](const auto& one) {
                    return one.second.size() > 1 && one.second.contains(i);
                }))
                alone.push_back(hosts[i].name);
        }
        return {odd_row("networks", FindingStatus::warning, "no network that all hosts have an address in",
                        alone.empty() ? "routed networks work where every host is reached by one address"
                                      : fmt::format("in none with another host: {}; ip address show there",
                                                    fmt::join(alone, ", ")))};
    }
    std::string wanted;  // its interface on rank 0's host
    for (const NetworkInterface& one : hosts.front().interfaces) {
        if (network_of(one) == common.front()) wanted = one.name;
    }
    Findings rows = check_same_addresses(hosts, wanted);
    const auto add = [&](const Findings& more) { rows.insert(rows.end(), more.begin(), more.end()); };
    for (const std::string& network : common) {
        add(check_property(
            hosts, network, "MTU", [](const NetworkInterface& one) { return one.mtu; },
            "large packets are lost or cut: ip link set {} mtu {} there"));
        add(check_property(
            hosts, network, "a link of Mbit/s",
            [](const NetworkInterface& one) { return one.megabits_per_second.value_or(0); },
            "cable, switch port or autonegotiation: ethtool {} there"));
    }
    if (rows.empty()) rows.push_back(host_row("networks", fmt::format("all in {}", fmt::join(common, ", "))));
    return rows;
}

std::string rate_text(double bytes_per_second) {
    return bytes_per_second < 1e8 ? fmt::format("{:.3g} MB/s", bytes_per_second * 1e-6)
                                  : fmt::format("{:.3g} GB/s", bytes_per_second * 1e-9);
}

/// What good links reach, by the upper quarter: a single odd host of three touches four of six links.
struct GoodLink {
    double bytes_per_second = 0, latency_seconds = 0;
};
GoodLink good_link(const std::vector<HostLink>& links) {
    std::vector<double> rates, latencies;
    for (const HostLink& link : links) {
        rates.push_back(link.bytes_per_second);
        latencies.push_back(link.latency_seconds);
    }
    std::ranges::sort(rates);
    std::ranges::sort(latencies);
    return {rates[rates.size() * 3 / 4], latencies[latencies.size() / 4]};
}

struct LinkProperty {
    double limit = 0;                    ///< of badness, beyond which a link is bad
    double (*badness)(const HostLink&);  ///< grows as the link gets worse
    std::string (*text_of)(const HostLink&);
    std::string others;  ///< what good links have
};

/// Rows about bad links, one where they are all of a host's.
Findings check_links_of(const HostComparison& comparison, const LinkProperty& property) {
    const auto bad = [&](const HostLink& link) { return property.badness(link) > property.limit; };
    const Hosts& hosts = comparison.hosts;
    std::vector<int> out(hosts.size()), in(hosts.size());
    for (const HostLink& link : comparison.links) {
        if (!bad(link)) continue;
        ++out[static_cast<std::size_t>(link.from)];
        ++in[static_cast<std::size_t>(link.to)];
    }
    const int all = static_cast<int>(hosts.size()) - 1;
    const auto is_odd = [&](int host) {  // of two hosts nobody knows which
        return all > 1 &&
               (out[static_cast<std::size_t>(host)] == all || in[static_cast<std::size_t>(host)] == all);
    };
    std::size_t odd_hosts = 0;
    for (std::size_t i = 0; i < hosts.size(); ++i) odd_hosts += is_odd(static_cast<int>(i));
    if (2 * odd_hosts > hosts.size())
        return {odd_row("links", FindingStatus::warning,
                        fmt::format("uneven: most hosts are far from the {} of good links", property.others),
                        "no host is the odd one; are they busy with other work? The table has every link")};
    Findings rows;
    for (std::size_t i = 0; i < hosts.size(); ++i) {
        if (!is_odd(static_cast<int>(i))) continue;
        const bool sends = out[i] == all, takes = in[i] == all;
        const HostLink* worst = nullptr;
        for (const HostLink& link : comparison.links) {
            const bool own =
                (sends && link.from == static_cast<int>(i)) || (takes && link.to == static_cast<int>(i));
            if (own && (worst == nullptr || property.badness(link) > property.badness(*worst))) worst = &link;
        }
        rows.push_back(odd_row(
            "links", FindingStatus::warning,
            fmt::format("{} {} {} every other host, the others {}", hosts[i].name, property.text_of(*worst),
                        sends && takes ? "to and from"
                        : sends        ? "to"
                                       : "from",
                        property.others),
            fmt::format("the slowest host sets the pace: look at the interface, cable and switch port of {0} "
                        "(ethtool, ip -s link, tc qdisc), or take {0} out of the hostfile",
                        hosts[i].name)));
    }
    for (const HostLink& link : comparison.links) {
        if (!bad(link) || is_odd(link.from) || is_odd(link.to)) continue;
        const std::string &from = hosts[static_cast<std::size_t>(link.from)].name,
                          &to = hosts[static_cast<std::size_t>(link.to)].name;
        rows.push_back(
            odd_row("links", FindingStatus::warning,
                    fmt::format("{} from {} to {}, {}{}", property.text_of(link), from, to,
                                all > 1 ? "others " : "the other way ", property.others),
                    fmt::format("look at what {} sends with and at the way between them: ethtool, ip -s "
                                "link, tc qdisc",
                                from)));
    }
    return rows;
}

Findings check_links(const HostComparison& comparison) {
    if (comparison.links.empty()) return {};
    const GoodLink good = good_link(comparison.links);
    Findings rows = check_links_of(
        comparison, {.limit = -kSlowShare * good.bytes_per_second,
                     .badness = [](const HostLink& link) { return -link.bytes_per_second; },
                     .text_of = [](const HostLink& link) { return rate_text(link.bytes_per_second); },
                     .others = rate_text(good.bytes_per_second)});
    const Findings late = check_links_of(
        comparison,
        {.limit = std::max(kLateSeconds, kLateFactor * good.latency_seconds),
         .badness = [](const HostLink& link) { return link.latency_seconds; },
         .text_of = [](const HostLink& link) { return seconds_text(link.latency_seconds) + " of latency"; },
         .others = seconds_text(good.latency_seconds)});
    rows.insert(rows.end(), late.begin(), late.end());
    if (!rows.empty()) return rows;
    const auto by_rate = [](const HostLink& left, const HostLink& right) {
        return left.bytes_per_second < right.bytes_per_second;
    };
    const auto [slowest, fastest] = std::ranges::minmax_element(comparison.links, by_rate);
    rows.push_back(host_row(
        "links", fmt::format("{} to {} one way, {} of latency", rate_text(slowest->bytes_per_second),
                             rate_text(fastest->bytes_per_second), seconds_text(good.latency_seconds))));
    return rows;
}

std::string interfaces_text(const HostFacts& host) {
    std::vector<std::string> texts;
    for (const NetworkInterface& one : host.interfaces)
        texts.push_back(fmt::format("{} {}/{} MTU {}", one.name, one.address, one.prefix, one.mtu));
    return texts.empty() ? "none with an IPv4 address" : fmt::format("{}", fmt::join(texts, ", "));
}

}  // namespace

Findings check_hosts(const HostComparison& comparison) {
    Findings rows;
    if (comparison.hosts.size() < 2) return rows;
    for (const Findings& more : {check_clocks(comparison.hosts), check_folder(comparison),
                                 check_networks(comparison.hosts), check_links(comparison)})
        rows.insert(rows.end(), more.begin(), more.end());
    return rows;
}

std::string hosts_text(const HostComparison& comparison) {
    const Hosts& hosts = comparison.hosts;
    if (hosts.size() < 2) return "";
    const std::size_t shown = std::min(hosts.size(), kHostsInTable);
    std::size_t width = 9;
    for (const HostFacts& host : hosts) width = std::max(width, host.name.size());
    std::string text = fmt::format("\n  {:<{}}  ranks  clock       run folder  interfaces\n", "host", width);
    for (std::size_t i = 0; i < shown; ++i) {
        const HostFacts& host = hosts[i];
        text +=
            fmt::format("  {:<{}}  {:>5}  {:<10}  {:<10}  {}\n", host.name, width, host.ranks,
                        i == 0 ? "0" : (host.clock_seconds > 0 ? "+" : "") + seconds_text(host.clock_seconds),
                        !comparison.folder_written ? "unknown"
                        : host.sees_folder         ? "shared"
                                                   : "NOT SHARED",
                        interfaces_text(host));
    }
    if (shown < hosts.size()) text += fmt::format("  {} hosts more: --json\n", hosts.size() - shown);
    if (comparison.links.empty()) return text;
    text += fmt::format("\n  {:<{}}", "from \\ to, GB/s", std::max<std::size_t>(width, 15));
    for (std::size_t to = 0; to < shown; ++to) text += fmt::format("  {:>{}}", hosts[to].name, width);
    for (std::size_t from = 0; from < shown; ++from) {
        text += fmt::format("\n  {:<{}}", hosts[from].name, std::max<std::size_t>(width, 15));
        for (std::size_t to = 0; to < shown; ++to) {
            const auto link = std::ranges::find_if(comparison.links, [&](const HostLink& one) {
                return one.from == static_cast<int>(from) && one.to == static_cast<int>(to);
            });
            text += link == comparison.links.end()
                        ? fmt::format("  {:>{}}", "-", width)
                        : fmt::format("  {:>{}.3g}", link->bytes_per_second * 1e-9, width);
        }
    }
    return text + "\n";
}

}  // namespace moesaic
