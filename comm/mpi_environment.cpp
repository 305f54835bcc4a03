#include "comm/mpi_environment.h"

#include <array>
#include <cstdlib>

#include "comm/mpi_communicator.h"

namespace moesaic {

bool mpi_launched() {
    // Open MPI's mpirun; MPICH and Intel MPI's hydra, srun --mpi=pmi2; any PMIx launcher, srun --mpi=pmix.
    for (const char* name : std::array{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"}) {
        if (std::getenv(name)) return true;
    }
    return false;
}

int mpi_local_ranks() {
    for (const char* name :
         std::array{"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"}) {
        if (const char* value = std::getenv(name)) return std::atoi(value);
    }
    return 1;
}

void set_mpi_defaults(bool oversubscribed) {
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0);
    if (oversubscribed) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
}

}  // namespace moesaic
