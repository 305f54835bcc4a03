// Certificates from losses on data that no decision was made on: Hoeffding, kl, empirical Bernstein,
// binomial.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"
#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

/// A fixed model's losses on `samples` held-out units (documents or packed sequences), each the mean loss of
/// its unit, all in [0, range]. The model was chosen without them.
struct HeldoutLosses {
    double samples = 1;
    double mean = 0;
    double variance = 0;  ///< of the losses, divisor samples - 1; read by empirical Bernstein alone
    double range = 1;
    double delta = 0.05;
};

/// mean + range sqrt(ln(1/delta)/(2n)). Source: Hoeffding 1963.
[[nodiscard]] BoundResult hoeffding_bound(const HeldoutLosses& input);
/// The largest mean whose kl from the observed one is at most ln(1/delta)/n; never above Hoeffding's, and for
/// any losses in the range. Source: Hoeffding 1963, inequality (2.1); Langford 2005.
[[nodiscard]] BoundResult heldout_kl_bound(const HeldoutLosses& input);
/// mean + sqrt(2 V ln(2/delta)/n) + 7 range ln(2/delta)/(3(n-1)), n >= 2. Source: Maurer and Pontil 2009,
/// theorem 4.
[[nodiscard]] BoundResult empirical_bernstein_bound(const HeldoutLosses& input);

/// The exact upper limit of a chance of which `errors` of `samples` independent 0-1 losses were seen. Source:
/// Clopper and Pearson 1934.
[[nodiscard]] BoundResult clopper_pearson_bound(double errors, double samples, double delta);

/// Two-sided Hoeffding half-width, range sqrt(ln(2/delta)/(2n)).
[[nodiscard]] double hoeffding_half_width(double samples, double range, double delta);
/// The share of delta that the t-th look at the same shard may spend, t from 1: delta/(t(t+1)).
[[nodiscard]] double delta_of_look(double delta, double look);

/// One-sided upper limit of the mean of losses in [0, 1], in a random order that does not depend on them,
/// each step's lambda from the losses before it (at most 1/2), tuned to their number. For a fixed model.
/// Source: Waudby-Smith and Ramdas 2024, theorem 2 (predictable plug-in empirical Bernstein).
[[nodiscard]] double plug_in_bernstein_upper(std::span<const double> losses, double delta);

/// One-sided upper limit of the mean of p_i, the expected losses given what came before, of losses in [0, 1]
/// that may depend on those before them; lambda in (0, 1) is chosen without them. Source: Howard, Ramdas,
/// McAuliffe, Sekhon 2021; proof in the README of this folder (fresh data, Bernstein).
[[nodiscard]] double ordered_bernstein_upper(std::span<const double> losses, double lambda, double delta);

/// One-sided upper limit of the mean of independent losses in [0, 1] of a fixed model, in a random order that
/// does not depend on them: the means m against which a gambler who bets on smaller losses does not get rich,
/// product over i of (1 + lambda_i (m - x_i)) < 1/delta, lambda_i the plug-in of the losses before, at most
/// 0.95/(1-m). For losses with a small variance nearly ln(1/delta)/n, where plug_in_bernstein_upper has twice
/// that. Source: Waudby-Smith and Ramdas 2024, section 4 (betting).
[[nodiscard]] double betting_upper(std::span<const double> losses, double delta);

/// The numbers below `count` in a random order that follows from the seed and a name alone: what a shard's
/// losses are taken in where a stake comes from those before. Shards lie in the order of their files.
[[nodiscard]] std::vector<std::size_t> random_order(std::size_t count, u64 seed, std::string_view name);

/// Interval of mean(heldout) - mean(train), losses in [0, range], the two shards independent.
struct GapInterval {
    double gap = 0, low = 0, high = 0;
};
/// betting_upper on both sides of both shards at delta/4 each, in random orders that follow from `seed`: for
/// losses that are independent draws, in any order.
[[nodiscard]] GapInterval bounded_gap_interval(std::span<const double> heldout, std::span<const double> train,
                                               double range, double delta, u64 seed);
/// The same for losses that may depend on those before them in their shard: ordered_bernstein_upper, its
/// stakes from the other shard's variance. About the mean over the places of these losses.
[[nodiscard]] GapInterval ordered_gap_interval(std::span<const double> heldout, std::span<const double> train,
                                               double range, double delta);

/// Of losses, divisor n - 1; the largest that losses in [0, 1] have where there are fewer than two.
[[nodiscard]] double variance_of(std::span<const double> losses);

}  // namespace moesaic
