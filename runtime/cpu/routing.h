// Choosing experts for tokens, and moving token rows to slots and back.
#pragma once

#include "runtime/backend.h"
#include "runtime/cpu/range.h"

namespace moesaic::cpu {

void top_k(const TopK& operation, Range rows);
/// All of it: a counting sort has two passes over the keys that depend on each other.
void group_by_key(const GroupByKey& operation);
void gather_rows(const GatherRows& operation, Range rows);
void combine_rows(const CombineRows& operation, Range rows);
/// Rows are those of dy; an empty d_weight is left out.
void combine_rows_grad(const CombineRowsGrad& operation, Range rows);

}  // namespace moesaic::cpu
