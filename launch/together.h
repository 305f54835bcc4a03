// Work that every rank does on its own and that has failed for all when it fails on one.
#pragma once

#include <exception>
#include <functional>
#include <vector>

#include "comm/communicator.h"

namespace moesaic {

/// Collective over `world`. Whether each rank has failed, by rank.
[[nodiscard]] std::vector<bool> gather_failures(Communicator& world, Stream& stream, bool failed);

/// After gather_failures: the lowest failed rank throws `mine`, the others AbortedError, so that a failure is
/// told once. Returns where nobody failed.
void throw_first_failure(const Communicator& world, const std::vector<bool>& failed,
                         const std::exception_ptr& mine);

/// Collective over `world`. Runs `work` and then both of the above.
void together(Communicator& world, Stream& stream, const std::function<void()>& work);

}  // namespace moesaic
