// Noise for routers: keyed random numbers, noisy logits, and the load that noise makes differentiable.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void random_fill(const RandomFill& operation, Range elements);
void multiply_elements(const MultiplyElements& operation, Range elements);
void noisy_logits(const NoisyLogits& operation, Range rows);
void noisy_logits_grad(const NoisyLogitsGrad& operation, Range rows);
void noisy_load(const NoisyLoad& operation, Range rows);
void noisy_load_grad(const NoisyLoadGrad& operation, Range rows);

}  // namespace moesaic::cpu
