// How sure a router is of its choices: entropy of its distribution, weight of the first choice.
#pragma once

#include "layers/router.h"

namespace moesaic {

/// Tokens of a part; a micro-batch's parts are added in their order, so that no sum depends on the layout.
inline constexpr i64 kConfidenceRows = 64;

/// Fills saved.confidence, on the host after the next synchronisation of compute;
/// nothing for a router without a distribution.
void sum_confidence(StepContext& context, const Routing& routing, RouterSaved& saved);

}  // namespace moesaic
