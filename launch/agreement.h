// What every rank has to hold alike before training begins.
#pragma once

#include <string_view>

#include "comm/communicator.h"

namespace moesaic {

/// Collective over `world`. Throws Error on every rank, naming those that differ from rank 0, unless `text`
/// is the same everywhere. `what` stands in the message, e.g. "the configuration".
void check_agreement(Communicator& world, std::string_view what, std::string_view text);

}  // namespace moesaic
