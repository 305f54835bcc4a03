#include "comm/exchange/exchange.h"

namespace moesaic {

DispatchPlan Exchange::plan(StepContext& context, const Routing& routing, int layer) {
    return make_plan(context, routing, {capacity_rows(), sizes().own_rows_first}, layer);
}

IndexedRows ArrivedRows::by_expert(i64 received) const {
    if (index.data) return {rows, index.slice_rows(0, received)};
    return {rows.slice_rows(0, received)};
}

ExpertRows Exchange::result_rows(StepContext& context) {
    return ExpertRows(context.backend.allocate({sizes_.capacity_rows, sizes_.width}, sizes_.dtype));
}

}  // namespace moesaic
