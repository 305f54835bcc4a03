#include "comm/exchange/indexed_rows.h"

namespace moesaic {

IndexedRows IndexedRows::slice(i64 first, i64 count) const {
    if (index.data) return {rows, index.slice_rows(first, count)};
    return {rows.slice_rows(first, count)};
}

void gather_rows(StepContext& context, const IndexedRows& from, TensorView out) {
    if (from.index.data) {
        context.backend.gather_rows(context.compute, {.in = from.rows, .index = from.index, .out = out});
    } else {
        context.backend.copy(context.compute, from.rows, out);
    }
}

}  // namespace moesaic
