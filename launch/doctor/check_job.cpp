// Rows about MPI and about all ranks together.
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "launch/doctor/advice.h"
#include "launch/doctor/checks.h"

namespace moesaic {

namespace {

using Nodes = std::map<std::string, std::vector<const RankFacts*>>;

Nodes by_node(const std::vector<RankFacts>& ranks) {
    Nodes nodes;
    for (const RankFacts& rank : ranks) nodes[rank.host].push_back(&rank);
    return nodes;
}

std::string setting(const MpiFacts& facts, const char* name) {
    const auto found = facts.settings.find(name);
    return found == facts.settings.end() ? "" : found->second;
}

Finding check_launcher(const OsRelease& os, const MpiFacts& facts, const MpiInstallation& installed) {
    Finding row{.section = "MPI", .name = "launcher"};
    if (installed.launcher.empty()) {
        const InstallAdvice advice = install_advice(os, "launcher");
        row.status = FindingStatus::missing;
        row.found = "no mpirun on PATH";
        row.advice = advice.text;
        row.packages = advice.packages;
        return row;
    }
    const std::string kind = mpi_kind(installed.launcher_version);
    row.found = fmt::format("{} ({})", installed.launcher, kind.empty() ? "of an unknown MPI" : kind);
    if (!kind.empty() && !facts.kind.empty() && kind != facts.kind) {
        row.status = FindingStatus::warning;
        row.advice = fmt::format(
            "this binary talks {}: under that mpirun every process would be alone; take the mpirun of {}",
            facts.kind, facts.kind);
    }
    return row;
}

Finding check_thread_level(const MpiFacts& facts) {
    Finding row{
        .section = "MPI", .name = "thread level", .found = facts.thread_level + " (serialized is enough)"};
    if (facts.thread_level.empty()) {
        row.found = "known once MPI runs: start the doctor with mpirun";
    } else if (!facts.serialized) {
        row.status = FindingStatus::failed;
        row.advice = "this MPI was built without threads: take another build of it";
    }
    return row;
}

/// How rows travel within a node: by the library's own copy, or by system calls that take longer.
Finding check_shared_copies(const MpiFacts& facts) {
    Finding row{.section = "MPI", .name = "copies in a node", .found = "as the library decides"};
    const std::string vader = setting(facts, "btl_vader_single_copy_mechanism");
    if (facts.thread_level.empty()) row.found = "known once MPI runs: start the doctor with mpirun";
    if (vader.empty()) return row;
    row.found = "btl_vader_single_copy_mechanism " + vader;
    if (vader == "cma") {
        row.status = FindingStatus::warning;
        row.advice = "two to three times slower than none; the program sets that unless the environment does";
    }
    return row;
}

Finding check_transport(const MpiFacts& facts) {
    Finding row{.section = "MPI", .name = "transport", .found = "as the library decides"};
    std::vector<std::string> chosen;
    for (const char* name : {"pml", "btl", "mtl", "osc"}) {
        if (const std::string value = setting(facts, name); !value.empty())
            chosen.push_back(fmt::format("{} {}", name, value));
    }
    if (!chosen.empty()) row.found = fmt::format("{}", fmt::join(chosen, ", "));
    return row;
}

Finding check_root(const MpiInstallation& installed, const MpiFacts& facts) {
    Finding row{.section = "MPI", .name = "user", .found = "ordinary"};
    if (!installed.is_root) return row;
    row.found = installed.root_allowed ? "root, allowed by OMPI_ALLOW_RUN_AS_ROOT and _CONFIRM" : "root";
    if (!installed.root_allowed && facts.kind == "Open MPI") {
        row.status = FindingStatus::warning;
        row.advice = "mpirun refuses root: export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1";
    }
    return row;
}

Finding check_ranks(const Nodes& nodes, std::size_t ranks, const MpiLaunch& launch, bool as_threads) {
    Finding row{.section = "job", .name = "ranks"};
    const std::string who = as_threads ? "threads of one process"
                            : launch.launcher.empty()
                                ? "no launcher: mpirun -np N moesaic doctor tests messages too"
                                : launch.launcher;
    row.found = fmt::format("{} on {} node{}, {}", ranks, nodes.size(), nodes.size() == 1 ? "" : "s", who);
    if (launch.slots) row.found += fmt::format(", {} slots", *launch.slots);
    if (static_cast<int>(ranks) != launch.size && !as_threads && !launch.launcher.empty()) {
        row.status = FindingStatus::failed;
        row.advice = fmt::format("the launcher started {}: it and this binary's MPI do not know each other",
                                 launch.size);
    }
    return row;
}

/// Processors of the ranks of a node, and whether they are too few or unused.
Finding check_binding(const std::string& host, const std::vector<const RankFacts*>& ranks,
                      int node_processors, bool as_threads) {
    Finding row{.section = "job", .name = "binding", .node = host};
    std::set<int> together;
    std::size_t sum = 0;
    int threads = 0;
    for (const RankFacts* rank : ranks) {
        together.insert(rank->processors.begin(), rank->processors.end());
        sum += rank->processors.size();
        threads += rank->threads;
    }
    const bool bound = sum == together.size() && ranks.size() > 1;
    const auto& first = *ranks.front();
    row.found = ranks.size() == 1 ? fmt::format("processors {}", cpu_list_text(first.processors))
                : bound
                    ? fmt::format("{} processor{} each, {} first", first.processors.size(),
                                  first.processors.size() == 1 ? "" : "s", cpu_list_text(first.processors))
                    : fmt::format("{} processors together", together.size());
    row.found += fmt::format(", {} thread{} per rank", first.threads, first.threads == 1 ? "" : "s");
    const int usable = static_cast<int>(together.size());
    if (threads > usable) {
        row.status = FindingStatus::warning;
        row.advice = fmt::format("{} threads share {} processors: fewer ranks, or smaller cpu.threads",
                                 threads, usable);
        if (usable < node_processors && !as_threads)
            row.advice = fmt::format("{} ranks are bound to {} of {} processors: mpirun --bind-to none",
                                     ranks.size(), usable, node_processors);
    } else if (threads * 2 <= node_processors && !as_threads && usable < node_processors) {
        row.status = FindingStatus::warning;
        row.advice =
            fmt::format("{} of {} processors idle: mpirun --bind-to none, or --map-by ppr:N:node:PE=CORES",
                        node_processors - usable, node_processors);
    }
    return row;
}

Finding check_yield(const Nodes& nodes, const MpiFacts& facts, bool as_threads) {
    Finding row{.section = "job", .name = "oversubscription", .found = "no: every rank has a core"};
    const auto crowded = std::ranges::find_if(nodes, [](const auto& node) {
        std::set<int> together;
        for (const RankFacts* rank : node.second)
            together.insert(rank->processors.begin(), rank->processors.end());
        return node.second.size() > together.size();
    });
    if (crowded == nodes.end()) return row;
    row.status = FindingStatus::warning;
    row.found = fmt::format("more ranks than cores on {}", crowded->first);
    row.advice = "right for tests, slow for training";
    const std::string yield = setting(facts, "mpi_yield_when_idle");
    if (as_threads || yield.empty()) return row;
    const bool yields = yield == "1" || yield == "true";
    row.found += yields ? "; waiting ranks yield" : "; waiting ranks spin";
    if (!yields) row.advice += "; a barrier takes milliseconds: --mca mpi_yield_when_idle 1";
    return row;
}

/// One row that says whether a property is the same on all ranks; else whose is not as most have it.
Finding check_same(const std::vector<RankFacts>& ranks, const char* name, std::string RankFacts::*property,
                   FindingStatus otherwise, const std::string& advice) {
    Finding row{.section = "job", .name = name, .found = "the same on all ranks"};
    const bool one_host =
        std::ranges::all_of(ranks, [&](const RankFacts& rank) { return rank.host == ranks.front().host; });
    std::map<std::string, std::vector<std::string>> owners;  // of a value, each once
    for (const RankFacts& rank : ranks) {
        auto& names = owners[rank.*property];
        const std::string owner = one_host ? fmt::format("rank {}", rank.rank) : rank.host;
        if (names.empty() || names.back() != owner) names.push_back(owner);
    }
    if (owners.size() < 2) return row;
    // Among equals what rank 0 has.
    auto common = owners.find(ranks.front().*property);
    for (auto one = owners.begin(); one != owners.end(); ++one) {
        if (one->second.size() > common->second.size()) common = one;
    }
    std::vector<std::string> odd, texts;
    for (const auto& [value, names] : owners) {
        if (value == common->first) continue;
        odd.insert(odd.end(), names.begin(), names.end());
        texts.push_back(fmt::format("{}: {}", fmt::join(names, ", "), value));
    }
    row.status = otherwise;
    row.found = fmt::format("{}; {}: {}", fmt::join(texts, "; "),
                            common->second.size() == 1 ? common->second.front()
                                                       : fmt::format("the other {}", common->second.size()),
                            common->first);
    row.advice = fmt::format("{}: {}", fmt::join(odd, ", "), advice);
    return row;
}

}  // namespace

Findings check_mpi(const OsRelease& os, const MpiFacts& facts, const MpiInstallation& installed,
                   const MpiLaunch& launch) {
    Finding library{.section = "MPI", .name = "library", .found = facts.library + ", MPI " + facts.standard};
    if (!facts.compiled) {
        const InstallAdvice advice = install_advice(os, "MPI library");
        library.status = FindingStatus::missing;
        library.needed = !launch.launcher.empty();
        library.found = "this binary was built without MPI: one process, --ranks-as-threads";
        library.advice = advice.text;
        library.packages = advice.packages;
        return {library};
    }
    return {library,
            check_launcher(os, facts, installed),
            check_thread_level(facts),
            check_shared_copies(facts),
            check_transport(facts),
            check_root(installed, facts)};
}

Findings check_programs(const std::vector<RankFacts>& ranks) {
    return {check_same(ranks, "program", &RankFacts::version, FindingStatus::failed,
                       "every rank has to run the same build; copy it there, or start it from a folder that "
                       "all hosts share"),
            check_same(ranks, "MPI library", &RankFacts::mpi_library, FindingStatus::failed,
                       "install the same version of MPI there, or put its folder first on LD_LIBRARY_PATH")};
}

Findings check_job(const std::vector<RankFacts>& ranks, const MpiLaunch& launch, const MpiFacts& facts,
                   bool as_threads) {
    const Nodes nodes = by_node(ranks);
    Findings rows{check_ranks(nodes, ranks.size(), launch, as_threads)};
    for (const auto& [host, here] : nodes)
        rows.push_back(
            check_binding(nodes.size() > 1 ? host : "", here, here.front()->node_processors, as_threads));
    rows.push_back(check_yield(nodes, facts, as_threads));
    for (const Finding& row : check_programs(ranks)) rows.push_back(row);
    rows.push_back(check_same(ranks, "CPU models", &RankFacts::cpu_model, FindingStatus::warning,
                              "the slowest one sets the pace"));
    rows.push_back(
        check_same(ranks, "CPU features", &RankFacts::cpu_features, FindingStatus::warning,
                   "other instructions sum in another order: numbers may differ in their last bits "
                   "from those of like processors"));
    return rows;
}

}  // namespace moesaic
