// Ranks as MPI processes; without MPI in the build, the same names that say so.
#pragma once

#include <functional>
#include <memory>

#include "comm/communicator.h"

namespace moesaic {

/// Whether this process was started as one of several MPI ranks (by mpirun, mpiexec or srun --mpi=...), from
/// the environment; also in builds without MPI.
[[nodiscard]] bool mpi_launched();

/// Whether this build can talk MPI, and which library answers ("Open MPI v4.1.4, ..."; empty without).
[[nodiscard]] bool mpi_available();
[[nodiscard]] std::string mpi_library();

/// MPI from initialisation to finalisation; one per process, on the main thread. When an exception passes
/// through the destructor, the whole job ends with exit code 1 instead of waiting for ranks that hang.
class MpiSession {
  public:
    MpiSession();
    ~MpiSession();
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;

  private:
    [[maybe_unused]] int exceptions_at_start_;  // not used without MPI
};

/// Collective over all MPI processes. Needs a living MpiSession; sets run_context().
[[nodiscard]] std::unique_ptr<Communicator> make_mpi_world(double timeout_seconds = 600);

/// Runs `body` as this process's rank and returns what it returns: main's way into MPI. An exception that
/// leaves `body` is printed once, with its rank, and ends the whole job with exit code 1. A UserError is
/// printed once as it is; 2 is returned when every rank found it, otherwise it too ends the job.
[[nodiscard]] int run_mpi_rank(const std::function<int(Communicator&)>& body, double timeout_seconds = 600);

}  // namespace moesaic
