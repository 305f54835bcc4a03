// How a command becomes ranks: under mpirun or srun, as threads of one process, or alone.
#pragma once

#include <functional>

#include "comm/communicator.h"

namespace moesaic {

struct RankOptions {
    int ranks_as_threads = 0;  ///< 0: not asked for
};

/// Runs `body` once per rank and returns the exit code of the contract: what `body` returns (the largest over the ranks of
/// this process), 1 after an Error, 2 after a UserError. Errors are printed once, naming the rank they came from.
int run_on_ranks(const RankOptions& options, const std::function<int(Communicator& world)>& body);

/// Collective over `world`. Runs `work`, which may throw UserError on any rank for its own reason (a file that one node
/// lacks); afterwards every rank knows, the lowest such rank's text is printed, and all ranks throw PrintedError.
void agree_on_user_errors(Communicator& world, const std::function<void()>& work);

/// A user error whose text was printed already; exit code 2.
class PrintedError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

}  // namespace moesaic
