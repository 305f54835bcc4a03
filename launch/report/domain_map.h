// The heat map of domains and experts: a panel per layer, experts across, domains upwards.
#pragma once

#include <string>

#include "launch/report/run_history.h"

namespace moesaic {

[[nodiscard]] std::string domain_map_script(const RunHistory& run);
[[nodiscard]] int domain_map_height(const RunHistory& run);  ///< pixels

}  // namespace moesaic
