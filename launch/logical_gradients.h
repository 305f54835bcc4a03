// The reduced gradient of every logical tensor of the model in one place, for comparing layouts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "launch/rank_runtime.h"

namespace moesaic {

/// By logical name, experts by their global number; f64 whatever the model's type.
using LogicalTensors = std::map<std::string, std::vector<double>>;

/// Collective over the world, after GradientSync::finish. Complete on world rank 0, this rank's own part
/// elsewhere.
[[nodiscard]] LogicalTensors gather_gradients(RankRuntime& runtime);

}  // namespace moesaic
