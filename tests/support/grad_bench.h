// What gradient checks of routers, mixtures and models share: a small model, one rank, and what the balance
// losses are by their definitions.
#pragma once

#include "comm/self_communicator.h"
#include "layers/model_spec.h"
#include "tests/support/balance_target.h"
#include "tests/support/grad_check.h"

namespace moesaic {

[[nodiscard]] inline ModelSpec tiny_spec() {
    ModelSpec spec;
    spec.vocabulary = 11;
    spec.width = 8;
    spec.layers = 2;
    spec.heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 6;
    spec.init_std = 0.4;
    spec.dense_hidden = 5;
    spec.experts = 4;
    spec.top_k = 2;
    spec.hidden = 5;
    spec.balance = {.aux = 0.7, .z = 0.3, .scope = BalanceScope::micro};
    spec.seq_len = 5;
    spec.micro_sequences = 3;
    return spec;
}

inline constexpr i64 kTokens = 15;  // three sequences of five

/// One rank, a store and inputs: what a grad check needs besides the layer.
struct Bench {
    explicit Bench(const ModelSpec& model, int expert_parallel = 1)
        : spec(model), world(), rank(world, expert_parallel, static_cast<int>(spec.experts)) {}

    /// Declares nothing more: allocates, and makes the input [T,width].
    Tensor input(i64 width) {
        store.end_segment();
        allocate_with_noise(rank, store);
        return upload(rank, normal_values("x", kTokens * width), {kTokens, width});
    }

    ModelSpec spec;
    SelfCommunicator world;
    RankSetup rank;
    ParameterStore store{*rank.backend, DType::f64};
};

inline constexpr double kGlobalTokens = 40;  // of which the tokens here are a part
inline const std::vector<i64> kGlobalCounts = {9, 31, 0, 40};

inline const std::vector<double> kGlobalWeights = {8, 20, 0, 12};

[[nodiscard]] inline GlobalBalance global_balance() {
    return {.tokens = kGlobalTokens, .counts = kGlobalCounts, .weight = kGlobalWeights, .load = {}};
}

/// What a loss counts for expert e of object o, by its definition: all choices or one of each token.
[[nodiscard]] inline double fraction(const ModelSpec& spec, const RouterTotals& totals, std::size_t object,
                                     std::size_t expert) {
    const bool global = spec.balance.scope == BalanceScope::global;
    const double tokens = global ? kGlobalTokens : static_cast<double>(totals.rows_per_object);
    const auto experts = static_cast<std::size_t>(spec.experts);
    const i64 count = global ? kGlobalCounts[expert] : totals.balance_counts[object * experts + expert];
    const bool per_choice = spec.balance.convention == BalanceConvention::megatron;
    return static_cast<double>(count) / (per_choice ? tokens * static_cast<double>(spec.top_k) : tokens);
}

/// The balance losses of one layer, times their coefficients, by their definitions. The importance of scope
/// global is left to balance_test: no weight of this micro-batch moves the batch's sums here.
[[nodiscard]] inline double balance_objective(const ModelSpec& spec, const RouterTotals& totals) {
    const auto experts = static_cast<std::size_t>(spec.experts);
    double sum = 0;
    for (std::size_t object = 0; object < totals.z_sum.size(); ++object) {
        double products = 0, mean = 0, square = 0;
        for (std::size_t e = 0; e < experts; ++e) {
            const double weight = totals.weight_sum[object * experts + e];
            products += fraction(spec, totals, object, e) * totals.probability_sum[object * experts + e];
            mean += weight / static_cast<double>(experts);
            square += weight * weight / static_cast<double>(experts);
        }
        const double share = static_cast<double>(totals.rows_per_object) / kGlobalTokens;
        sum += spec.balance.aux * static_cast<double>(spec.experts) * products / kGlobalTokens;
        sum += spec.balance.importance * share * (square / (mean * mean) - 1);
        sum += spec.balance.z * totals.z_sum[object] / kGlobalTokens;
    }
    return sum;
}

}  // namespace moesaic
