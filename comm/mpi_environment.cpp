#include "comm/mpi_environment.h"

#include <unistd.h>

#include <array>
#include <cstdlib>

#include "comm/mpi_communicator.h"
#include "comm/mpi_facts.h"

namespace moesaic {

namespace {

/// The first of `names` that is set, as a number.
template <std::size_t n>
std::optional<int> number_in_environment(const std::array<const char*, n>& names) {
    for (const char* name : names) {
        if (const char* value = std::getenv(name)) return std::atoi(value);
    }
    return std::nullopt;
}

}  // namespace

bool mpi_launched() {
    // Open MPI's mpirun; MPICH and Intel MPI's hydra, srun --mpi=pmi2; any PMIx launcher, srun --mpi=pmix.
    for (const char* name : std::array{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"}) {
        if (std::getenv(name)) return true;
    }
    return false;
}

int mpi_local_ranks() {
    return number_in_environment(
               std::array{"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"})
        .value_or(1);
}

bool more_ranks_than_cores(int local_ranks) {
    return local_ranks > sysconf(_SC_NPROCESSORS_ONLN);
}

MpiLaunch mpi_launch() {
    MpiLaunch launch;
    // In this order: mpirun of Open MPI 5 speaks PMIx too, and srun sets its own beside PMI's or PMIx'.
    const auto set = [](const char* name) { return std::getenv(name) != nullptr; };
    launch.launcher = set("OMPI_COMM_WORLD_SIZE")   ? "mpirun of Open MPI"
                      : set("SLURM_STEP_NUM_TASKS") ? "srun"
                      : set("PMI_SIZE")             ? "hydra (MPICH, Intel MPI)"
                      : set("PMIX_RANK")            ? "PMIx"
                                                    : "";
    if (launch.launcher.empty()) return launch;
    launch.size =
        number_in_environment(std::array{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"})
            .value_or(1);
    launch.rank =
        number_in_environment(std::array{"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
            .value_or(0);
    launch.slots = number_in_environment(std::array{"OMPI_UNIVERSE_SIZE"});
    return launch;
}

std::string mpi_kind(const std::string& description) {
    for (const char* kind : std::array{"Open MPI", "Intel(R) MPI", "MPICH", "HYDRA", "MVAPICH"}) {
        if (description.find(kind) == std::string::npos) continue;
        const std::string found = kind;
        return found == "HYDRA" ? "MPICH" : found == "Intel(R) MPI" ? "Intel MPI" : found;
    }
    return description.find("OpenRTE") != std::string::npos ? "Open MPI" : "";
}

void set_mpi_defaults(bool oversubscribed) {
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
    if (oversubscribed) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
}

}  // namespace moesaic
