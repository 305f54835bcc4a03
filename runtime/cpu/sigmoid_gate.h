// Rows gated by the sigmoid of a number each, as Qwen2-MoE gates its shared expert.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void sigmoid_gate(const SigmoidGate& operation, Range rows);
void sigmoid_gate_grad(const SigmoidGateGrad& operation, Range rows);

}  // namespace moesaic::cpu
