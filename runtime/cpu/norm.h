// Root-mean-square normalisation, forward and backward (Zhang and Sennrich 2019, eq. 4).
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void rms_norm(const RmsNorm& operation, Range rows);
/// d_weight of weight columns [first, last), over all rows. Before rms_norm_grad_x, which may overwrite dy.
void rms_norm_grad_weight(const RmsNormGrad& operation, Range columns);
void rms_norm_grad_x(const RmsNormGrad& operation, Range rows);

}  // namespace moesaic::cpu
