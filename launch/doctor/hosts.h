// What the hosts of a job have in common, and which one is odd: clocks, the run folder, networks, and the
// links between them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "launch/doctor/finding.h"
#include "runtime/machine/network_facts.h"

namespace moesaic {

struct HostFacts {
    std::string name;
    int ranks = 0;
    double clock_seconds = 0;  ///< ahead of the clock of rank 0's host
    double clock_error = 0;    ///< at most so many seconds off: half of the shortest way there and back
    std::string folder;        ///< the nearest existing folder of runs
    bool sees_folder = true;   ///< what rank 0's host wrote there appears here too
    std::vector<NetworkInterface> interfaces;
};

/// One way between two hosts, which are places in HostComparison::hosts.
struct HostLink {
    int from = 0, to = 0;
    double bytes_per_second = 0, latency_seconds = 0;
};

struct HostComparison {
    std::vector<HostFacts> hosts;  ///< in the order of their first ranks
    bool folder_written = true;    ///< rank 0's host could write into its folder
    std::vector<HostLink> links;   ///< every ordered pair; none where nothing was measured
};

/// A tournament, in which every host meets every other one in one of the rounds; -1: nobody in this one.
[[nodiscard]] int link_rounds(int hosts);
[[nodiscard]] int link_partner(int hosts, int round, int me);

/// Collective over `world`. Complete on rank 0, empty on the others and where all ranks share a host.
/// `hosts`: the host of every rank; `out`: where run folders would be, with a file there for a moment.
/// Links take a round for every host, about a third of a second each; in a round every host speaks with one.
[[nodiscard]] HostComparison compare_hosts(Communicator& world, const std::vector<std::string>& hosts,
                                           const std::string& out, bool quick);

/// The judgement: a row for each subject that all agree on, and one for every odd host.
[[nodiscard]] Findings check_hosts(const HostComparison& comparison);

/// Two tables, hosts and links, for a person; nothing for a single host.
[[nodiscard]] std::string hosts_text(const HostComparison& comparison);

}  // namespace moesaic
