// Softmax over rows: as probabilities of a router, and inside the cross entropy, with its backward.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void row_softmax(const RowSoftmax& operation, Range rows);
void cross_entropy(const CrossEntropy& operation, Range rows);
void cross_entropy_grad(const CrossEntropyGrad& operation, Range rows);

}  // namespace moesaic::cpu
