// How much the last layer alone could fit, on the features that the rest of the model makes of a shard.
#pragma once

#include <optional>
#include <vector>

#include "launch/rank_runtime.h"
#include "launch/run_setup.h"

namespace moesaic {

/// Collective over the world. SignSums::complexity of the head on the first of the training windows (4096
/// tokens, at least 8 windows), with the norm of its matrix as the cap: the exact part of the model's
/// Rademacher complexity. As features and norm were learnt from these windows it is no bound of the gap, and
/// compares runs. Nothing where there is no cross-entropy, or where a training forward, which keeps the
/// features, is no evaluation.
[[nodiscard]] std::optional<double> head_complexity(RankRuntime& runtime, const RunSetup& run,
                                                    const std::vector<i64>& windows);

}  // namespace moesaic
