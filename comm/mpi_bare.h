// MPI's own all-to-all without anything of ours around it: what benchmarks compare with.
#pragma once

#include <memory>

#include "comm/communicator.h"

namespace moesaic {

/// MPI_Alltoallv over all MPI processes, blocking, on the host at once: no time-out, no ledger. Made by
/// make_bare_all_to_all, and gone before MPI ends.
class BareAllToAll {
  public:
    virtual ~BareAllToAll() = default;
    /// Collective over all MPI processes; arguments as Communicator::all_to_all_rows has them, rows without
    /// gaps.
    virtual void exchange(const void* send, Counts send_rows, void* recv, Counts recv_rows) = 0;
};

/// Collective over all MPI processes. Null where ranks are not MPI processes, and in builds without MPI.
[[nodiscard]] std::unique_ptr<BareAllToAll> make_bare_all_to_all(i64 row_bytes);

}  // namespace moesaic
