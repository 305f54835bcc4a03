// The squared error of regression, with its backward.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void squared_error(const SquaredError& operation, Range rows);
void squared_error_grad(const SquaredErrorGrad& operation, Range rows);

}  // namespace moesaic::cpu
