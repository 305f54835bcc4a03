// Ranks as threads of one process, which copy straight out of each other's buffers.
#pragma once

#include <functional>
#include <memory>

#include "comm/communicator.h"

namespace moesaic {

namespace detail {
struct ThreadWorldState;
}

/// The meeting place of `size` threads. Communicators keep what they need of it alive.
///
/// When one rank calls another collective than its peers (verb, label or size of rows) or counts do not
/// agree, every rank of the group throws Error naming both sides.
class ThreadWorld {
  public:
    explicit ThreadWorld(int size, double timeout_seconds = 600);
    /// The world communicator of `rank`: to be called once per rank and used by one thread.
    [[nodiscard]] std::unique_ptr<Communicator> communicator(int rank);

  private:
    std::shared_ptr<detail::ThreadWorldState> state_;
    double timeout_seconds_;
};

/// Runs `body` on `world` ranks at once, each a thread with its own run_context(), and waits for all of them.
/// When one throws, the others are stopped; the first failure is thrown here (an AbortedError only where
/// nothing else is known).
void run_ranks(int world, const std::function<void(Communicator&)>& body, double timeout_seconds = 600);

}  // namespace moesaic
