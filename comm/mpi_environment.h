// What the environment says about MPI before it is initialised; needs no MPI.
#pragma once

namespace moesaic {

/// Ranks that the launcher started on this node; 1 where it does not say.
[[nodiscard]] int mpi_local_ranks();

/// Open MPI settings that suit this program, through the environment, where the user has set none: rows
/// within a node are copied through shared memory rather than by system calls (two to three times faster),
/// and waiting ranks let others run when `oversubscribed` (otherwise a barrier takes milliseconds).
void set_mpi_defaults(bool oversubscribed);

}  // namespace moesaic
