// The doctor's judgement: from facts of a machine or a job to rows with advice. Nothing here reads the
// machine, except check_build and check_tools, which ask the programs they find.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/mpi_environment.h"
#include "comm/mpi_facts.h"
#include "launch/doctor/finding.h"
#include "runtime/machine/cpu_facts.h"
#include "runtime/machine/gpu_libraries.h"
#include "runtime/machine/memory_facts.h"
#include "runtime/machine/os_release.h"

namespace moesaic {

/// This binary.
[[nodiscard]] Findings check_build();
/// Compilers and build tools on `path`, each asked for its version.
[[nodiscard]] Findings check_tools(const OsRelease& os, const std::string& path);

struct MpiInstallation {
    std::string launcher;          ///< the file that mpirun means; empty: none
    std::string launcher_version;  ///< what it says of itself
    bool is_root = false;          ///< effective user 0
    bool root_allowed = false;     ///< Open MPI's two variables are set
};
/// The library, the launcher and what they are set to; `launch` as it was before MPI started.
[[nodiscard]] Findings check_mpi(const OsRelease& os, const MpiFacts& facts, const MpiInstallation& installed,
                                 const MpiLaunch& launch);

/// `nvcc` is what the compiler of that name says of its version; empty: not found.
[[nodiscard]] Findings check_gpu(const OsRelease& os, const GpuLibraries& libraries,
                                 const std::optional<std::string>& nvcc);

/// `usable`: by affinity; `target`: the instruction set that our kernels run.
[[nodiscard]] Findings check_cpu(const CpuFacts& cpu, const CgroupLimits& limits,
                                 const std::vector<int>& usable, const std::string& target);
[[nodiscard]] Findings check_huge_pages(const MemoryFacts& memory);

struct ProcessLimits {
    std::optional<i64> locked_bytes, open_files;  ///< empty: unlimited
    bool infiniband = false;                      ///< there is an adapter, which wants locked memory
};
/// `run_folder` and `shared_memory` (/dev/shm): the space there; `ranks` on this node.
[[nodiscard]] Findings check_limits(const MemoryFacts& memory, const CgroupLimits& cgroup,
                                    const ProcessLimits& limits, const std::optional<DiskSpace>& run_folder,
                                    const std::optional<DiskSpace>& shared_memory, int ranks);

/// What every rank says of itself.
struct RankFacts {
    int rank = 0, local_rank = 0, threads = 1;
    std::string host, version, mpi_library, cpu_model, cpu_features;
    std::vector<int> processors;  ///< that it may run on
    int node_processors = 0;      ///< online on its node
};
/// Whether all run the same program and MPI.
[[nodiscard]] Findings check_programs(const std::vector<RankFacts>& ranks);
/// The whole job: ranks, nodes, binding, programs, and whether processors are alike.
[[nodiscard]] Findings check_job(const std::vector<RankFacts>& ranks, const MpiLaunch& launch,
                                 const MpiFacts& facts, bool as_threads);

}  // namespace moesaic
