// Reading rows of a table by token, and adding gradients back into it.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void embedding(const Embedding& operation, Range rows);
/// Table columns [first, last) for all rows in ascending order.
void embedding_grad(const EmbeddingGrad& operation, Range columns);

}  // namespace moesaic::cpu
