// Routing that the host makes from numbers of tokens, whatever they hold.
#pragma once

#include <functional>
#include <span>

#include "layers/router.h"

namespace moesaic {

/// Calls choose(choices of row 0, of row 1, ...) i32 [T,K] on the host and enqueues the copy to the device;
/// saved.host_choices holds the host's until then. Weights are 1/K.
[[nodiscard]] Routing forced_routing(StepContext& context, const LayerInput& in, i64 choices,
                                     RouterSaved& saved,
                                     const std::function<void(std::span<i32> experts)>& choose);

}  // namespace moesaic
