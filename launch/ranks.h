// How a command becomes ranks: under mpirun or srun, as threads of one process, or alone.
#pragma once

#include <functional>

#include "comm/communicator.h"

namespace moesaic {

/// Runs `body` once per rank and returns the exit code of the contract: the largest that `body` returns in
/// this process, 1 after an Error, 2 after a UserError. Errors are printed once, naming the rank they came
/// from. `ranks_as_threads` 0: not asked for.
int run_on_ranks(int ranks_as_threads, const std::function<int(Communicator& world)>& body);

}  // namespace moesaic
