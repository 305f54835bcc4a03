// What a router decided, as plain data.
#pragma once

#include <limits>
#include <optional>

#include "runtime/tensor.h"

namespace moesaic {

struct Routing {
    Tensor expert;  ///< i32 [T,K] global expert numbers, distinct within a token; -1: dropped
    Tensor weight;  ///< real [T,K]
    i64 most_rows = std::numeric_limits<i64>::max();  ///< of one expert, where a capacity limits them
    /// Choices that are not -1, at most, where the configuration says so: memory needs room for no more.
    std::optional<i64> most_choices = {};

    [[nodiscard]] i64 slots() const { return most_choices.value_or(expert.elements()); }
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
