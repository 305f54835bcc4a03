#include "launch/doctor/doctor.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "launch/doctor/checks.h"
#include "launch/doctor/gather_texts.h"
#include "launch/doctor/measure.h"
#include "launch/rank_runtime.h"
#include "runtime/base/build_info.h"
#include "runtime/cpu/memory_bandwidth.h"
#include "runtime/machine/programs.h"
#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

using Json = nlohmann::json;

std::optional<i64> soft_limit(int resource) {
    rlimit limit{};
    if (::getrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0 ||
        limit.rlim_cur == RLIM_INFINITY)
        return std::nullopt;
    return static_cast<i64>(limit.rlim_cur);
}

ProcessLimits process_limits() {
    std::error_code error;
    return {soft_limit(RLIMIT_MEMLOCK), soft_limit(RLIMIT_NOFILE),
            !std::filesystem::is_empty("/sys/class/infiniband", error) && !error};
}

MpiInstallation mpi_installation(const std::string& path) {
    MpiInstallation installed;
    if (const auto launcher = find_program("mpirun", path)) {
        installed.launcher = *launcher;
        installed.launcher_version = output_of({*launcher, "--version"}, 1).value_or("");
    }
    installed.is_root = ::geteuid() == 0;
    installed.root_allowed =
        std::getenv("OMPI_ALLOW_RUN_AS_ROOT") && std::getenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM");
    return installed;
}

std::string host_name() {
    std::array<char, 256> name{};
    ::gethostname(name.data(), name.size() - 1);
    return name.data();
}

RankFacts rank_facts(const Communicator& world, const CpuFacts& cpu) {
    RankFacts facts;
    facts.rank = world.rank();
    facts.local_rank = world.topology().local_rank;
    facts.threads = resolve_threads(std::nullopt, world.topology().ranks_per_node);
    facts.host = host_name();
    facts.version = fmt::format("{} {}", kVersion, kCommit);
    facts.mpi_library = mpi_facts().library;
    facts.cpu_model = cpu.model;
    facts.cpu_features = check_cpu(cpu, {}, {}, "")[2].found;
    facts.processors = usable_processors();
    facts.node_processors = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
    return facts;
}

/// Rows of this rank's node.
Findings node_findings(const DoctorOptions& options, const CpuFacts& cpu, int ranks) {
    const OsRelease os = read_os_release("");
    const std::string path = search_path();
    const CgroupLimits cgroup = read_cgroup_limits("");
    const MemoryFacts memory = read_memory_facts("");
    const auto compiler = find_program("nvcc", path);
    Findings all{{.section = "build", .name = "system", .found = os.name.empty() ? "unknown" : os.name}};
    const auto add = [&](const Findings& rows) { all.insert(all.end(), rows.begin(), rows.end()); };
    add(check_build());
    add(check_tools(os, path));
    add(check_mpi(os, mpi_facts(), mpi_installation(path), options.launch));
    add(check_gpu(os, find_gpu_libraries(),
                  compiler ? std::optional(*compiler + " " +
                                           version_in(output_of({*compiler, "--version"}, 1).value_or("")))
                           : std::nullopt));
    add(check_cpu(cpu, cgroup, usable_processors(), vector_target_name()));
    add(check_huge_pages(memory));
    add(check_limits(memory, cgroup, process_limits(), disk_space(options.out), disk_space("/dev/shm"),
                     ranks));
    for (Finding& row : all) row.node = host_name();
    return all;
}

std::string report_json(const RankFacts& facts, const Findings& findings,
                        const std::vector<Measurement>& measured) {
    Json figures = Json::array();
    for (const Measurement& one : measured)
        figures.push_back({one.name, one.best, one.median, one.note, one.all_threads, one.arithmetic});
    const Json report{{"rank", facts.rank},
                      {"local_rank", facts.local_rank},
                      {"threads", facts.threads},
                      {"host", facts.host},
                      {"version", facts.version},
                      {"mpi_library", facts.mpi_library},
                      {"cpu_model", facts.cpu_model},
                      {"cpu_features", facts.cpu_features},
                      {"processors", facts.processors},
                      {"node_processors", facts.node_processors},
                      {"findings", findings_json(findings)},
                      {"measured", figures}};
    return report.dump(-1, ' ', false, Json::error_handler_t::replace);
}

struct RankReport {
    RankFacts facts;
    Findings findings;
    std::vector<Measurement> measured;
};

RankReport parse_report(const std::string& text) {
    const Json json = Json::parse(text);
    RankReport report;
    report.facts = {json.at("rank"),           json.at("local_rank"),   json.at("threads"),
                    json.at("host"),           json.at("version"),      json.at("mpi_library"),
                    json.at("cpu_model"),      json.at("cpu_features"), json.at("processors"),
                    json.at("node_processors")};
    report.findings = parse_findings(json.at("findings").get<std::string>());
    for (const Json& one : json.at("measured"))
        report.measured.push_back({one[0], one[1], one[2], one[3], one[4], one[5]});
    return report;
}

/// Every node's rows in the order of its first rank.
Findings rows_by_node(const std::vector<RankReport>& reports) {
    Findings all;
    std::vector<std::string> seen;
    for (const RankReport& first : reports) {
        const std::string& host = first.facts.host;
        if (std::ranges::find(seen, host) != seen.end()) continue;
        seen.push_back(host);
        std::vector<std::vector<Measurement>> measured;
        std::set<int> processors;
        int threads = 0;
        for (const RankReport& report : reports) {
            if (report.facts.host != host) continue;
            all.insert(all.end(), report.findings.begin(), report.findings.end());
            processors.insert(report.facts.processors.begin(), report.facts.processors.end());
            threads += report.facts.threads;
            // The leader's comes first: it has figures that the others lack.
            measured.insert(report.facts.local_rank == 0 ? measured.begin() : measured.end(),
                            report.measured);
        }
        const Findings rows =
            measured_rows(host, measured, std::min(1.0, static_cast<double>(processors.size()) / threads));
        all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
}

/// Collective over `world`: host, version and MPI of every rank. Lines of text, so that every version of this
/// program reads those of every other one.
std::vector<RankFacts> gather_programs(Communicator& world, const RankFacts& mine) {
    std::vector<RankFacts> all;
    for (const std::string& text :
         gather_texts(world, fmt::format("{}\n{}\n{}\n", mine.host, mine.version, mine.mpi_library))) {
        auto lines = lines_of(text);
        lines.resize(3);
        RankFacts one;
        one.rank = static_cast<int>(all.size());
        one.host = lines[0];
        one.version = lines[1];
        one.mpi_library = lines[2];
        all.push_back(std::move(one));
    }
    return all;
}

}  // namespace

Diagnosis examine(Communicator& world, const DoctorOptions& options) {
    const Topology topology = world.topology();
    const CpuFacts cpu = read_cpu_facts("");
    const RankFacts facts = rank_facts(world, cpu);
    Diagnosis diagnosis;
    diagnosis.ranks = world.size();
    diagnosis.nodes = topology.nodes;
    const std::vector<RankFacts> programs = gather_programs(world, facts);
    const Findings same = check_programs(programs);
    if (!all_well(same)) {  // what other programs would report, this one may not understand
        if (world.rank() != 0) return diagnosis;
        diagnosis.findings = same;
        diagnosis.findings.push_back(
            {.section = "job", .name = "other checks", .found = "left out until then"});
        return diagnosis;
    }
    std::vector<std::string> hosts;
    for (const RankFacts& one : programs) hosts.push_back(one.host);
    const auto here = static_cast<int>(std::ranges::count(hosts, facts.host));
    Findings findings;
    if (topology.local_rank == 0) findings = node_findings(options, cpu, here);
    diagnosis.hosts = compare_hosts(world, hosts, options.out, options.quick);
    std::vector<Measurement> measured;
    Findings messages;
    if (!options.quick) {
        measured = measure_machine(world, facts.threads, here);
        messages = measure_messages(world, hosts);
    }
    const auto texts = gather_texts(world, report_json(facts, findings, measured));
    if (world.rank() != 0) return diagnosis;
    std::vector<RankReport> reports;
    std::vector<RankFacts> ranks;
    for (const std::string& text : texts) {
        reports.push_back(parse_report(text));
        ranks.push_back(reports.back().facts);
    }
    diagnosis.findings = rows_by_node(reports);
    for (const Findings& rows : {check_job(ranks, options.launch, mpi_facts(), options.ranks_as_threads),
                                 check_hosts(diagnosis.hosts), messages})
        diagnosis.findings.insert(diagnosis.findings.end(), rows.begin(), rows.end());
    return diagnosis;
}

}  // namespace moesaic
