// What routers need of the processor besides a softmax and the largest k: sums per balance object, and the
// gradient.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void router_sums(const RouterSums& operation, Range objects);
void router_confidence(const RouterConfidence& operation, Range parts);
void router_grad(const RouterGrad& operation, Range rows);

}  // namespace moesaic::cpu
