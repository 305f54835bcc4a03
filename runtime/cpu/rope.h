// Rotary position embedding (Su et al. 2021, eq. 34), forward and backward.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void rope(const Rope& operation, Range rows);

}  // namespace moesaic::cpu
