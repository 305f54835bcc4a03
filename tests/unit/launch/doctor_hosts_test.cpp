// Which host is odd, on pictured clusters; and what ranks that are threads measure of each other.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "comm/thread_communicator.h"
#include "launch/doctor/checks.h"
#include "launch/doctor/hosts.h"
#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using Status = FindingStatus;

/// Hosts n0, n1, ... with like everything.
HostComparison alike(int count) {
    HostComparison all;
    for (int i = 0; i < count; ++i) {
        HostFacts host;
        host.name = fmt::format("n{}", i);
        host.ranks = 1;
        host.clock_seconds = 1e-3 * i;
        host.clock_error = 1e-4;
        host.folder = "/runs";
        host.interfaces = {{"eth0", fmt::format("10.0.0.{}", i + 1), 24, 1500, 10000}};
        all.hosts.push_back(host);
        for (int j = 0; j < count; ++j) {
            if (j != i) all.links.push_back({i, j, 1e9 * (1 + 0.1 * i), 20e-6});
        }
    }
    return all;
}

/// The rows that are not ok.
Findings bad_rows(const HostComparison& comparison) {
    Findings bad;
    for (const Finding& one : check_hosts(comparison)) {
        if (one.status != Status::ok) bad.push_back(one);
        EXPECT_EQ(one.advice.empty(), one.status == Status::ok) << one.name;
    }
    return bad;
}
/// The only row that is not ok says this, and its advice that.
void expect_one(const HostComparison& comparison, const std::string& found, const std::string& advice) {
    const Findings bad = bad_rows(comparison);
    ASSERT_EQ(bad.size(), 1u) << bad.front().found << (bad.size() > 1 ? "; " + bad[1].found : "");
    EXPECT_EQ(bad.front().found, found);
    EXPECT_NE(bad.front().advice.find(advice), std::string::npos) << bad.front().advice;
}

TEST(DoctorHosts, LikeHostsAreWell) {
    for (const int count : {2, 3, 8}) {
        EXPECT_TRUE(bad_rows(alike(count)).empty()) << count;
        EXPECT_EQ(check_hosts(alike(count)).size(), 4u) << "a row for each subject";
    }
    EXPECT_TRUE(check_hosts(alike(1)).empty());
    EXPECT_TRUE(check_hosts({}).empty());
}

TEST(DoctorHosts, AClockThatIsOff) {
    HostComparison all = alike(2);
    all.hosts[1].clock_seconds = 0.9;
    EXPECT_TRUE(bad_rows(all).empty());
    all.hosts[1].clock_seconds = -1.5;
    expect_one(all, "n1 is 1.50 s behind n0", "on n1 timedatectl");
    // The odd clock is the one that all others are compared with.
    all = alike(4);
    for (int i = 1; i < 4; ++i) all.hosts[static_cast<std::size_t>(i)].clock_seconds = 3600;
    expect_one(all, "n0 is 3600.00 s behind the others", "on n0");
}

TEST(DoctorHosts, AFolderThatIsNotShared) {
    HostComparison all = alike(3);
    all.hosts[2].sees_folder = false;
    expect_one(all, "n2 does not see what n0 writes to /runs", "mount the same file system on n2");
    EXPECT_FALSE(all_well(check_hosts(all)));
    all.hosts[2].folder = "/";
    expect_one(all, "n2 does not see what n0 writes to /runs (there /)", "--out");
    all.folder_written = false;
    expect_one(all, "whether all hosts share /runs is not known: n0 cannot write there", "--out");
    EXPECT_TRUE(all_well(check_hosts(all)));
}

TEST(DoctorHosts, NetworksThatDiffer) {
    HostComparison all = alike(3);
    all.hosts[1].interfaces[0].mtu = 9000;
    expect_one(all, "eth0 of n1 has MTU 9000, the others 1500", "ip link set eth0 mtu 1500");
    all = alike(2);
    all.hosts[0].interfaces[0].megabits_per_second = 100;
    expect_one(all, "eth0 of n0 has a link of Mbit/s 100, the others 10000", "ethtool eth0");
    all.hosts[0].interfaces[0].megabits_per_second.reset();
    EXPECT_TRUE(bad_rows(all).empty()) << "a driver that does not say";
    // A bridge of containers, with the address that it has everywhere.
    all = alike(2);
    for (HostFacts& host : all.hosts) host.interfaces.push_back({"docker0", "172.17.0.1", 16, 1500, {}});
    expect_one(all, "docker0 has the address 172.17.0.1/16 on 2 hosts", "btl_tcp_if_include eth0");
    all = alike(3);
    all.hosts[2].interfaces[0].address = "192.168.7.3";
    expect_one(all, "no network that all hosts have an address in", "with another host: n2");
    all.hosts[1].interfaces.clear();
    expect_one(all, "no network that all hosts have an address in", "with another host: n0, n1, n2");
}

TEST(DoctorHosts, NetworksOfAddresses) {
    EXPECT_EQ(network_of({"eth0", "10.83.7.200", 24, 0, {}}), "10.83.7.0/24");
    EXPECT_EQ(network_of({"eth0", "10.83.7.200", 26, 0, {}}), "10.83.7.192/26");
    EXPECT_EQ(network_of({"eth0", "10.83.7.200", 32, 0, {}}), "10.83.7.200/32");
    EXPECT_EQ(network_of({"eth0", "10.83.7.200", 0, 0, {}}), "0.0.0.0/0");
    for (const NetworkInterface& one : read_network_interfaces()) {
        EXPECT_NE(one.name, "lo");
        EXPECT_FALSE(one.address.empty());
    }
}

TEST(DoctorHosts, LinksThatAreSlow) {
    // A host that sends slowly, one that does both; a cable between two.
    HostComparison all = alike(4);
    for (HostLink& link : all.links) {
        if (link.from == 3) link.bytes_per_second = 6e6;
    }
    expect_one(all, "n3 6 MB/s to every other host, the others 1.2 GB/s", "switch port of n3");
    for (const int count : {3, 5}) {
        all = alike(count);
        for (HostLink& link : all.links) {
            if (link.from == 1 || link.to == 1) link.bytes_per_second = 0.12e9;
        }
        const Findings bad = bad_rows(all);
        ASSERT_EQ(bad.size(), 1u);
        EXPECT_TRUE(bad[0].found.starts_with("n1 0.12 GB/s to and from every other host")) << bad[0].found;
    }
    all = alike(4);
    for (HostLink& link : all.links) {
        if (link.from == 2 && link.to == 0) link.bytes_per_second = 0.3e9;
    }
    expect_one(all, "0.3 GB/s from n2 to n0, others 1.3 GB/s", "look at what n2 sends with");
    // Where most hosts are bad, none is odd.
    all = alike(5);
    for (HostLink& link : all.links) {
        if (link.from > 1) link.bytes_per_second = 1e8;
    }
    expect_one(all, "uneven: most hosts are far from the 1 GB/s of good links", "The table has every link");
    // Of two hosts only a direction can be named.
    all = alike(2);
    all.links[1].bytes_per_second = 1e6;
    expect_one(all, "1 MB/s from n1 to n0, the other way 1 GB/s", "n1");
    all = alike(3);
    for (HostLink& link : all.links) {
        if (link.from == 2 || link.to == 2) link.latency_seconds = 0.03;
    }
    expect_one(all, "n2 30.0 ms of latency to and from every other host, the others 20 us", "n2");
}

TEST(DoctorHosts, TablesForAPerson) {
    HostComparison all = alike(2);
    all.hosts[1].sees_folder = false;
    all.hosts[1].clock_seconds = 2;
    const std::string text = hosts_text(all);
    EXPECT_NE(text.find("n1             1  +2.00 s     NOT SHARED  eth0 10.0.0.2/24 MTU 1500"),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("n1                     1.1          -"), std::string::npos) << text;
    EXPECT_EQ(hosts_text(alike(1)), "");
    const std::string many = hosts_text(alike(40));
    EXPECT_NE(many.find("24 hosts more: --json"), std::string::npos);
    for (std::size_t at = 0; at < many.size(); at = many.find('\n', at) + 1)
        EXPECT_LE(many.find('\n', at) - at, 200u) << many;
}

TEST(DoctorHosts, ProgramsThatDiffer) {
    std::vector<RankFacts> ranks(6);
    for (int i = 0; i < 6; ++i) {
        auto& rank = ranks[static_cast<std::size_t>(i)];
        rank.rank = i;
        rank.host = fmt::format("n{}", i / 2);
        rank.version = i / 2 == 0 ? "0.1.0 old" : "0.1.0 new";
        rank.mpi_library = "Open MPI v4.1.4";
    }
    const Findings rows = check_programs(ranks);
    EXPECT_EQ(rows[0].status, Status::failed);
    EXPECT_EQ(rows[0].found, "n0: 0.1.0 old; the other 2: 0.1.0 new")
        << "the odd one is not who is not rank 0";
    EXPECT_TRUE(rows[0].advice.starts_with("n0: ")) << rows[0].advice;
    EXPECT_EQ(rows[1].status, Status::ok);
    ranks.resize(4);
    EXPECT_EQ(check_programs(ranks)[0].found, "n1: 0.1.0 new; n0: 0.1.0 old");
}

TEST(DoctorHosts, EveryHostMeetsEveryOtherOnce) {
    for (int hosts = 2; hosts <= 33; ++hosts) {
        std::set<std::pair<int, int>> met;
        for (int round = 0; round < link_rounds(hosts); ++round) {
            for (int me = 0; me < hosts; ++me) {
                const int other = link_partner(hosts, round, me);
                if (other < 0) continue;
                EXPECT_LT(other, hosts);
                EXPECT_NE(other, me);
                EXPECT_EQ(link_partner(hosts, round, other), me) << "of " << hosts << " in round " << round;
                EXPECT_TRUE(met.emplace(me, other).second) << "a second time";
            }
        }
        EXPECT_EQ(std::ssize(met), hosts * (hosts - 1));
    }
}

/// Threads that say they are on three hosts, the first of which has two ranks.
TEST(DoctorHosts, RanksCompareTheirHosts) {
    const testing_support::TemporaryFolder folder;
    const std::vector<std::string> hosts{"n0", "n0", "n1", "n2"};
    HostComparison found;
    run_ranks(4, [&](Communicator& world) {
        HostComparison mine = compare_hosts(world, hosts, folder.path(), false);
        if (world.rank() == 0)
            found = std::move(mine);
        else
            EXPECT_TRUE(mine.hosts.empty());
    });
    ASSERT_EQ(found.hosts.size(), 3u);
    EXPECT_EQ(found.hosts[0].ranks, 2);
    EXPECT_EQ(found.hosts[2].name, "n2");
    EXPECT_TRUE(found.folder_written);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << "a marker was left behind";
    EXPECT_EQ(found.links.size(), 6u);
    for (const HostLink& link : found.links) {
        EXPECT_GT(link.bytes_per_second, 0);
        EXPECT_GT(link.latency_seconds, 0);
    }
    for (const HostFacts& host : found.hosts) {
        EXPECT_TRUE(host.sees_folder);
        EXPECT_EQ(host.folder, folder.path());
        EXPECT_LE(std::abs(host.clock_seconds), host.clock_error + 1e-3) << "one clock for all";
    }
}

}  // namespace
}  // namespace moesaic
