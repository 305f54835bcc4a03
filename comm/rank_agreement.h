// What all ranks can do, told by each.
#pragma once

#include "comm/communicator.h"

namespace moesaic {

/// Collective over `world`, on the host at once; for start-up. The lowest rank that passes false, or -1.
[[nodiscard]] int first_rank_without(Communicator& world, bool has, Label label);

}  // namespace moesaic
