// The gated activation of experts (Shazeer 2020, "GLU variants improve transformer", eq. 6).
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void swiglu(const SwiGlu& operation, Range rows);
void swiglu_grad(const SwiGluGrad& operation, Range rows);

}  // namespace moesaic::cpu
