// What a layer is handed before its backward, made without a model around it.
#pragma once

#include "layers/balance.h"
#include "tests/support/layer_inputs.h"

namespace moesaic {

/// Derivatives of the balance losses for one layer alone; lives as long as the target is used.
struct LayerBalanceTarget {
    Tensor factor, weight_factor, load_factor;
    BalanceTarget target;
};

/// After the layer's forward, whose totals have to be complete.
[[nodiscard]] inline LayerBalanceTarget make_balance_target(RankSetup& rank, const ModelSpec& spec,
                                                            const RouterTotals& totals,
                                                            const GlobalBalance& global) {
    const RouterTotals* const layers[] = {&totals};
    BalanceFactors host;
    balance_factors(spec, layers, global, host);
    const auto uploaded = [&](const std::vector<double>& values) {
        return values.empty() ? Tensor() : upload(rank, values, {host.rows, spec.experts});
    };
    LayerBalanceTarget made{uploaded(host.probability), uploaded(host.weight), uploaded(host.load), {}};
    made.target = {made.factor, made.weight_factor, made.load_factor, totals.rows_per_object,
                   spec.balance.z / global.tokens};
    return made;
}

}  // namespace moesaic
