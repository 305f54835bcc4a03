// What every rank says, on every rank.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace moesaic {

/// Collective over `world`: the texts of all ranks, by rank.
[[nodiscard]] std::vector<std::string> gather_texts(Communicator& world, const std::string& mine);

}  // namespace moesaic
