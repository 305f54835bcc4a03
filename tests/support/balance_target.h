// What a layer is handed before its backward, made without a model around it.
#pragma once

#include "layers/balance.h"
#include "tests/support/layer_inputs.h"

namespace moesaic {

/// Derivatives of the balance losses for one layer alone; lives as long as the target is used.
struct LayerBalanceTarget {
    BalanceFactors host;
    Tensor factors;
    BalanceTarget target;
};

/// After the layer's forward, whose totals have to be complete.
[[nodiscard]] inline LayerBalanceTarget make_balance_target(RankSetup& rank, const ModelSpec& spec,
                                                            const RouterTotals& totals,
                                                            const GlobalBalance& global) {
    LayerBalanceTarget made;
    const RouterTotals* const layers[] = {&totals};
    balance_factors(spec, layers, global, made.host);
    made.factors = upload(rank, made.host.factors, {made.host.rows, spec.experts});
    made.target = {made.factors, {}, {}, totals.rows_per_object, spec.balance.z / global.tokens};
    return made;
}

}  // namespace moesaic
