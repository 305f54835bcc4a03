// What MPI knows of a communicator's members, which `group` points to as an MPI_Comm: a type that only
// comm/mpi* know.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace moesaic {

/// Throws Error saying `what` and MPI's text unless `code` is MPI_SUCCESS.
void check_mpi(int code, const std::string& what);

/// Collective over `group`.
[[nodiscard]] Topology topology_of(const void* group, int size);

/// By rank of the group; asks nobody.
[[nodiscard]] std::vector<int> world_ranks_of(const void* group, int size);

}  // namespace moesaic
