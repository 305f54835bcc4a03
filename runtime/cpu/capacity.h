// Which choices stay when experts are full, what the kept ones weigh, and derivatives by choice.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void add_by_choice(const AddByChoice& operation, Range rows);
void limit_choices(const LimitChoices& operation, Range objects);
void rescale_kept(const RescaleKept& operation, Range rows);
void rescale_kept_grad(const RescaleKeptGrad& operation, Range rows);

}  // namespace moesaic::cpu
