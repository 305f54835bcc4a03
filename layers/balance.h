// The losses that keep experts evenly used: what routers' choices add up to, the losses' values, and their
// derivatives. Routers know nothing of conventions and scopes: they are handed derivatives.
#pragma once

#include <span>
#include <vector>

#include "comm/routing.h"
#include "comm/step_context.h"
#include "layers/model_spec.h"

namespace moesaic {

/// Sums over a micro-batch by balance object (a sequence, or all of it), on the host: valid after the next
/// synchronisation of the compute stream; moving keeps them valid. Choices are counted as the router made
/// them, before any capacity drops some.
struct RouterTotals {
    i64 tokens = 0, choices = 0;
    i64 dropped = 0;                      ///< choices that a capacity dropped; set by the layer
    i64 rows_per_object = 1;              ///< T_o; objects O = tokens / rows_per_object
    std::vector<i64> host_counts;         ///< [O,E] (token, choice) pairs
    std::vector<i64> balance_counts;      ///< [O,E] those that the convention counts
    std::vector<double> probability_sum;  ///< [O,E]
    std::vector<double> weight_sum;       ///< [O,E] weights of an expert's choices: its importance
    std::vector<double> load_sum;         ///< [O,E] of RouterSaved::load_probability
    std::vector<double> z_sum;            ///< [O] of logsumexp(logits)^2

    [[nodiscard]] i64 chosen() const;  ///< of `choices` those that name an expert
};

/// Derivatives of the balance losses, coefficients and every other scale included, with respect to what a
/// router computed for a token t of object o. Each f64 [O,E], or one row for all objects.
struct BalanceTarget {
    ConstTensorView factor;         ///< d loss / d probability[t,e]; empty: none
    ConstTensorView weight_factor;  ///< d loss / d weight of a choice of e; the layer adds it; empty: none
    ConstTensorView load_factor;    ///< d loss / d load_probability[t,e]; empty: none
    i64 rows_per_object = 1;
    double z_scale = 0;  ///< d loss / d (log_sum_exp[t]^2)
};

/// A micro-batch's share of the losses, without their coefficients: the sum over all micro-batches is the
/// loss of the global batch.
struct BalanceTerms {
    double aux = 0, z = 0, importance = 0, load = 0;
};

/// What a micro-batch's share depends on besides its own sums. The vectors are over the whole batch, [expert
/// layers * E], and there for scope global alone.
struct GlobalBalance {
    double tokens = 1;               ///< N
    std::span<const i64> counts;     ///< of RouterTotals::balance_counts
    std::span<const double> weight;  ///< of RouterTotals::weight_sum; read for `importance`
    std::span<const double> load;    ///< of RouterTotals::load_sum; read for `load`
};

/// Where the sums of a micro-batch's choices are on the device; as in RouterSums.
struct RouterSumTensors {
    Tensor counts, balance_counts, probability_sum, weight_sum, load_sum, z_sum;
    i64 rows_per_object = 1;
    CountedChoices counted = CountedChoices::all;
};
/// For `tokens` tokens.
[[nodiscard]] RouterSumTensors allocate_router_sums(Backend& backend, const BalanceSpec& spec, i64 experts,
                                                    i64 tokens, i64 seq_len);
/// Enqueues the copies to the host of what was added up.
[[nodiscard]] RouterTotals totals_of(StepContext& context, const RouterSumTensors& sums,
                                     const Routing& routing);

/// What sum_router reads of a router. Empty where a router has none: then those sums are 0.
struct RouterOutput {
    ConstTensorView probability, log_sum_exp, load_probability;
};

/// Enqueues the sums of what a router decided, and their copies to the host.
[[nodiscard]] RouterTotals sum_router(StepContext& context, const ModelSpec& spec, i64 seq_len,
                                      const RouterOutput& output, const Routing& routing);

/// With object o's T_o tokens, counts c_e, mean probabilities m_e, L layers with experts, the load-balance
/// loss `aux` of a global batch is the sum over objects of T_o/N times
///   megatron            sum over layers of E/(K T_o) sum_e c_e m_e, all K choices counted      1 a layer
///   gshard              sum over layers of E/T_o sum_e c_e m_e, first choices counted          1 a layer
///   switch_transformer  the same, the most probable expert of each token counted               1 a layer
///   hf                  E sum_e C_e/(L T_o) M_e: C_e the sum, M_e the mean over layers; all K  K in all
/// (right: at perfect balance). Sources: Megatron-LM's switch_load_balancing_loss_func; Lepikhin et al. 2020,
/// GShard, algorithm 1, with DeepSpeed's factor of E^2; Fedus et al. 2021, eq. 4; Hugging Face's
/// load_balancing_loss_func. At scope global the batch is one object.
/// `z` is the mean over tokens of logsumexp(logits)^2, summed over layers (Zoph et al. 2022, eq. 5).
/// `importance` and `load` are the squared coefficient of variation, variance / mean^2 over the experts, of
/// the sums of weights and of load probabilities (Shazeer et al. 2017, eq. 7 and 11), T_o/N of each object,
/// summed over layers; 0 at perfect balance.
/// `layers`: the totals of each layer with experts, in order; as many objects in each.
[[nodiscard]] BalanceTerms balance_terms(const ModelSpec& spec, std::span<const RouterTotals* const> layers,
                                         const GlobalBalance& global);

/// Derivatives of the losses times their coefficients, for all layers: each [expert layers * rows, E], empty
/// where the coefficient is 0.
struct BalanceFactors {
    i64 rows = 0;  ///< of each layer: O, or 1 at scope global
    std::vector<double> probability, weight, load;
};
/// Overwrites `to`, keeping its memory.
void balance_factors(const ModelSpec& spec, std::span<const RouterTotals* const> layers,
                     const GlobalBalance& global, BalanceFactors& to);

/// Value of `aux` summed over layers where every expert is chosen as often and is as probable as any other.
[[nodiscard]] double perfect_balance(const ModelSpec& spec);
[[nodiscard]] std::string_view name_of(BalanceConvention convention);
/// In words, e.g. "convention hf, 2 at perfect balance"; empty for a dense model.
[[nodiscard]] std::string describe_balance(const ModelSpec& spec);

}  // namespace moesaic
