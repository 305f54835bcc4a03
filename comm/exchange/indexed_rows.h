// Rows that stand somewhere in memory, read in another order without moving them.
#pragma once

#include "comm/step_context.h"

namespace moesaic {

/// R rows [.,H]: row i is rows[index[i]], or rows[i] without an index.
struct IndexedRows {
    ConstTensorView rows;
    ConstTensorView index = {};  ///< i32 [R]; empty: rows are [R,H]

    [[nodiscard]] i64 count() const { return index.data ? index.rows() : rows.rows(); }
    [[nodiscard]] IndexedRows slice(i64 first, i64 count) const;
};

/// Moves them to `out` [R,H] in their order.
void gather_rows(StepContext& context, const IndexedRows& from, TensorView out);

}  // namespace moesaic
