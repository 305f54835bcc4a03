// What a router decided, as plain data.
#pragma once

#include "runtime/tensor.h"

namespace moesaic {

struct Routing {
    Tensor expert;  ///< i32 [T,K] global expert numbers, distinct within a token; -1: dropped
    Tensor weight;  ///< real [T,K]
};

struct StepContext;

/// Sees what routers decide, on the rank that decided it, in the order of the layers. Not called when a
/// decision is followed again (phase recompute).
class RoutingObserver {
  public:
    virtual ~RoutingObserver() = default;
    virtual void routed(StepContext& context, int layer, const Routing& routing) = 0;
};

}  // namespace moesaic
