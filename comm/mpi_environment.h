// What the environment says about MPI before it is initialised; needs no MPI.
#pragma once

#include <optional>
#include <string>

namespace moesaic {

/// Ranks that the launcher started on this node; 1 where it does not say.
[[nodiscard]] int mpi_local_ranks();
/// Whether so many ranks share this machine's cores.
[[nodiscard]] bool more_ranks_than_cores(int local_ranks);

/// What started this process, from the environment alone. To be asked before MPI is initialised, which may
/// change it.
struct MpiLaunch {
    std::string launcher;  ///< "mpirun of Open MPI", "hydra (MPICH, Intel MPI)", "PMIx", "srun"; empty: none
    int size = 1, rank = 0;    ///< of the job, as the launcher counts
    std::optional<int> slots;  ///< ranks that the allocation has room for, where it is said
};
[[nodiscard]] MpiLaunch mpi_launch();

/// Open MPI settings that suit this program, through the environment, where the user has set none: rows
/// within a node are copied through shared memory rather than by system calls (two to three times faster),
/// and waiting ranks let others run when `oversubscribed` (otherwise a barrier takes milliseconds). Other
/// libraries do not read them.
void set_mpi_defaults(bool oversubscribed);

}  // namespace moesaic
