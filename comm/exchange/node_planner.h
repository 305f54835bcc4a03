// Makes the part of a plan that exchanges by nodes need: counts, permutations, and which rows are of one
// token.
#pragma once

#include "comm/dispatch_plan.h"
#include "comm/exchange/exchange.h"
#include "comm/exchange/node_layout.h"

namespace moesaic {

/// What a kind of exchange has a use for.
struct NodePlanOptions {
    bool tokens = false;  ///< a token leaves once per node, so the proxy has to know whose rows are whose
    bool sums = false;    ///< the proxy adds a token's choices up before they travel back
};

[[nodiscard]] NodeSizes node_sizes(const Mesh&, const ExchangeSizes&);

/// Collective over mesh.experts(): make_plan, and with options.tokens one more all-to-all across nodes, of
/// token and weight of each row.
[[nodiscard]] DispatchPlan make_node_plan(StepContext&, const Routing&, const ExchangeSizes&, int layer,
                                          NodePlanOptions);

}  // namespace moesaic
