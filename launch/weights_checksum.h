// One number for all weights of a model, to compare runs by.
#pragma once

#include "launch/rank_runtime.h"

namespace moesaic {

/// Collective over the mesh's experts(). The same on every rank and on every layout with as many slices of an
/// expert;
/// other weights, to the last bit of one of them, give another. Waits for the device.
[[nodiscard]] u64 weights_checksum(RankRuntime& runtime);

}  // namespace moesaic
