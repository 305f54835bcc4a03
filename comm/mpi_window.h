// Shared memory of MPI processes on one machine.
#pragma once

#include "comm/shared_window.h"

namespace moesaic {

/// Collective over `communicator`, whose ranks are on one machine. `group` points to its MPI_Comm, a type
/// that only comm/mpi* know. Throws UserError on every rank where they are not, or where the machine has too
/// little shared memory left.
[[nodiscard]] std::unique_ptr<SharedWindow> make_mpi_window(Communicator& communicator, const void* group,
                                                            i64 bytes, Label label, bool may_spin);

/// Bytes that can still be had from the file system behind shared memory; negative where it is not known.
[[nodiscard]] i64 free_shared_memory();

}  // namespace moesaic
