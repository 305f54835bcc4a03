// Rows about processors, huge pages and limits of one node.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "launch/doctor/checks.h"
#include "runtime/machine/text_file.h"

namespace moesaic {

namespace {

constexpr double kMebibyte = 1 << 20, kGibibyte = 1 << 30;

/// What decides over speed here; on ARM the kernel calls them otherwise.
constexpr std::array kFeatures{"avx2",     "fma",   "avx512f", "avx512bw", "avx512vl", "avx512_bf16",
                               "amx_bf16", "asimd", "bf16",    "sve",      "sve2"};

Finding unreadable(std::string section, std::string name, const std::string& what) {
    return {.section = std::move(section),
            .name = std::move(name),
            .status = FindingStatus::warning,
            .found = "unknown",
            .advice = what + " cannot be read: is it hidden from this container?"};
}

Finding check_cores(const CpuFacts& cpu, const CgroupLimits& limits, const std::vector<int>& usable) {
    Finding row{.section = "CPU", .name = "cores"};
    if (usable.empty() && cpu.processors == 0) return unreadable("CPU", "cores", "/proc/cpuinfo");
    row.found = fmt::format("{} usable ({}) of {}", usable.size(), cpu_list_text(usable), cpu.processors);
    if (!limits.processors) {
        row.found += ", no quota";
        return row;
    }
    row.found += fmt::format(", quota {:.3g} of a cgroup", *limits.processors);
    const auto whole = std::max(1, static_cast<int>(std::floor(*limits.processors)));
    if (*limits.processors < static_cast<double>(usable.size())) {
        row.status = FindingStatus::warning;
        row.advice = fmt::format(
            "threads beyond the quota are stopped in bursts: ranks times cpu.threads should be {}", whole);
    }
    return row;
}

Finding check_features(const CpuFacts& cpu) {
    if (cpu.flags.empty()) return unreadable("CPU", "features", "/proc/cpuinfo");
    std::vector<std::string> found;
    for (const char* feature : kFeatures) {
        if (cpu.has(feature)) found.emplace_back(feature);
    }
    Finding row{.section = "CPU", .name = "features", .found = fmt::format("{}", fmt::join(found, " "))};
    if (found.empty()) row.found = "none of " + fmt::format("{}", fmt::join(kFeatures, ", "));
    return row;
}

Finding check_target(const std::string& target, const CpuFacts& cpu) {
    Finding row{.section = "CPU", .name = "vector kernels", .found = target + " (Highway)"};
    if (!cpu.has("avx2") && !cpu.has("asimd") && !cpu.flags.empty()) {
        row.status = FindingStatus::warning;
        row.advice = "no AVX2: products are slow; in a virtual machine pass the host's CPU through";
    }
    return row;
}

std::string caches_text(const CpuFacts& cpu) {
    std::string text;
    for (const CpuCache& cache : cpu.caches) {
        text += fmt::format("{}L{}{} {}", text.empty() ? "" : ", ", cache.level,
                            cache.type == "Data" ? "d" : "", bytes_text(static_cast<double>(cache.bytes)));
        if (cache.shared_by > 1) text += fmt::format(" for {}", cache.shared_by);
    }
    return text.empty() ? "not told by the kernel" : text;
}

Finding space_row(const char* name, const std::optional<DiskSpace>& space) {
    Finding row{.section = "limits", .name = name, .found = "not there"};
    if (space)
        row.found = fmt::format("{} free of {} in {}", bytes_text(static_cast<double>(space->available)),
                                bytes_text(static_cast<double>(space->total)), space->folder);
    return row;
}

Finding check_memory(const MemoryFacts& memory, const CgroupLimits& cgroup, int ranks) {
    if (!memory.total || !memory.available) return unreadable("limits", "memory", "/proc/meminfo");
    Finding row{.section = "limits", .name = "memory"};
    row.found = fmt::format("{} available of {}", bytes_text(static_cast<double>(*memory.available)),
                            bytes_text(static_cast<double>(*memory.total)));
    double usable = static_cast<double>(*memory.available);
    if (cgroup.memory_bytes && *cgroup.memory_bytes < *memory.total) {
        row.found += fmt::format(", cgroup limit {}", bytes_text(static_cast<double>(*cgroup.memory_bytes)));
        usable = std::min(usable, static_cast<double>(*cgroup.memory_bytes));
    }
    if (usable < kGibibyte * ranks) {
        row.status = FindingStatus::warning;
        row.advice = "less than 1 GiB per rank; `moesaic train CONFIG --check` tells what a model needs";
    }
    return row;
}

Finding check_shared_memory(const std::optional<DiskSpace>& space, int ranks) {
    Finding row = space_row("/dev/shm", space);
    // Open MPI's segments take some 4 MiB per rank and grow; 64 MiB is what containers get by default.
    const double wanted = std::max(96.0, 16.0 * ranks) * kMebibyte;
    if (!space || static_cast<double>(space->available) < wanted) {
        row.status = FindingStatus::warning;
        row.advice = fmt::format("ranks of a node talk through it, {} wanted: docker run --shm-size=1g",
                                 bytes_text(wanted));
    }
    return row;
}

Finding check_disk(const std::optional<DiskSpace>& space) {
    Finding row = space_row("run folder", space);
    if (!space || !space->writable) {
        row.status = FindingStatus::failed;
        row.found += space ? ", not writable" : "";
        row.advice = "runs cannot be written here: choose another place with --out DIR";
    } else if (static_cast<double>(space->available) < kGibibyte) {
        row.status = FindingStatus::warning;
        row.advice = "checkpoints may fill the disk; `--check` tells their size";
    }
    return row;
}

}  // namespace

Findings check_cpu(const CpuFacts& cpu, const CgroupLimits& limits, const std::vector<int>& usable,
                   const std::string& target) {
    Findings rows;
    rows.push_back(cpu.model.empty() ? unreadable("CPU", "model", "/proc/cpuinfo")
                                     : Finding{.section = "CPU", .name = "model", .found = cpu.model});
    if (cpu.has("hypervisor")) rows.back().found += " (virtual machine)";
    rows.push_back(check_cores(cpu, limits, usable));
    rows.push_back(check_features(cpu));
    rows.push_back(check_target(target, cpu));
    rows.push_back({.section = "CPU", .name = "caches", .found = caches_text(cpu)});
    Finding numa{.section = "CPU", .name = "NUMA nodes", .found = "not told by the kernel"};
    if (cpu.numa_nodes) numa.found = fmt::format("{}", *cpu.numa_nodes);
    if (cpu.numa_nodes.value_or(1) > 1)
        numa.found += "; a rank on each is best: mpirun --map-by numa --bind-to numa";
    rows.push_back(numa);
    Finding smt{.section = "CPU", .name = "threads per core", .found = "not told by the kernel"};
    if (cpu.threads_per_core) smt.found = fmt::format("{}", *cpu.threads_per_core);
    if (cpu.threads_per_core.value_or(1) > 1) smt.found += "; arithmetic gains nothing from the second";
    rows.push_back(smt);
    return rows;
}

Findings check_huge_pages(const MemoryFacts& memory) {
    Finding transparent{
        .section = "huge pages", .name = "transparent", .found = memory.transparent_huge_pages};
    if (memory.transparent_huge_pages.empty()) {
        transparent.found = "not told by the kernel";
    } else if (memory.transparent_huge_pages == "never") {
        transparent.status = FindingStatus::warning;
        transparent.advice =
            "1 to 8 % faster: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root)";
    }
    Finding reserved{.section = "huge pages", .name = "reserved", .found = "not told by the kernel"};
    if (memory.huge_pages)
        reserved.found = fmt::format("{} free of {} pages of {}; none are needed",
                                     memory.huge_pages_free.value_or(0), *memory.huge_pages,
                                     bytes_text(static_cast<double>(memory.huge_page_bytes.value_or(0))));
    return {transparent, reserved};
}

Findings check_limits(const MemoryFacts& memory, const CgroupLimits& cgroup, const ProcessLimits& limits,
                      const std::optional<DiskSpace>& run_folder,
                      const std::optional<DiskSpace>& shared_memory, int ranks) {
    Findings rows{check_memory(memory, cgroup, ranks), check_shared_memory(shared_memory, ranks),
                  check_disk(run_folder)};
    Finding locked{.section = "limits", .name = "locked memory", .found = "unlimited"};
    if (limits.locked_bytes) {
        locked.found = bytes_text(static_cast<double>(*limits.locked_bytes));
        if (limits.infiniband) {
            locked.status = FindingStatus::warning;
            locked.advice =
                "InfiniBand wants it unlimited: ulimit -l unlimited, or limits.conf, on every node";
        }
    }
    rows.push_back(locked);
    Finding files{.section = "limits", .name = "open files", .found = "unlimited"};
    if (limits.open_files) {
        files.found = fmt::format("{}", *limits.open_files);
        if (*limits.open_files < 256) {
            files.status = FindingStatus::warning;
            files.advice = "many shards and connections need more: ulimit -n 4096";
        }
    }
    rows.push_back(files);
    return rows;
}

}  // namespace moesaic
