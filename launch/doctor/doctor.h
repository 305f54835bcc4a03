// The doctor: every rank looks at its machine, all measure together, rank 0 judges and prints.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "comm/mpi_environment.h"
#include "launch/doctor/finding.h"
#include "launch/doctor/hosts.h"

namespace moesaic {

struct DoctorOptions {
    bool quick = false;  ///< nothing is measured
    bool ranks_as_threads = false;
    std::string out = "runs";  ///< where run folders would be
    MpiLaunch launch;          ///< as it was before MPI started
};

struct Diagnosis {
    int ranks = 1, nodes = 1;
    Findings findings;     ///< node by node, then the job's
    HostComparison hosts;  ///< empty where all ranks share a host
};

/// Collective over `world`. The whole diagnosis on rank 0; the other ranks' is empty.
[[nodiscard]] Diagnosis examine(Communicator& world, const DoctorOptions& options);

/// For a person: sections, one line a row, advice below it.
[[nodiscard]] std::string diagnosis_text(const Diagnosis& diagnosis);
/// One object: ok, version, commit, ranks, nodes, rows, hosts, links.
[[nodiscard]] std::string diagnosis_json(const Diagnosis& diagnosis);

}  // namespace moesaic
