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

/// The name of the same tensor of another expert: "….experts.3.…" with 3 replaced.
[[nodiscard]] std::string name_for_expert(const Parameter& parameter, i64 expert);

}  // namespace moesaic
