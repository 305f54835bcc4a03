// PAC-Bayes: mean loss of a randomised model against its distance (KL) from a prior that saw no certifying
// data.
#pragma once

#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

/// Losses in [0, 1]; `samples` certifying examples, independent of the prior.
struct PacBayes {
    double samples = 1;
    double gibbs_loss = 0;  ///< mean loss of the randomised model on them
    double divergence = 0;  ///< KL(posterior || prior), nats
    double delta = 0.05;
};

/// kl_inverse(q, (KL + ln(2 sqrt(n)/delta))/n). Source: Maurer 2004.
[[nodiscard]] BoundResult maurer_bound(const PacBayes& input);
/// q + sqrt((KL + ln(2 sqrt(n)/delta))/(2n)). Source: McAllester 1999, with Maurer's constant.
[[nodiscard]] BoundResult mcallester_bound(const PacBayes& input);
/// (1 - exp(-lambda q - (KL + ln(1/delta))/n)) / (1 - exp(-lambda)), lambda > 0 fixed beforehand. Source:
/// Catoni 2007, theorem 1.2.1.
[[nodiscard]] BoundResult catoni_bound(const PacBayes& input, double lambda);

/// q + (psi/lambda) S + (KL + ln(1/delta))/(n lambda), psi = -ln(1-lambda) - lambda, S the randomised model's
/// mean of (x - mu)^2 over examples: for losses x that are averages with a small variance. lambda in (0, 1)
/// and mu are fixed beforehand. Source: exp(lambda (p - x) - psi (x - mu)^2) has mean at most 1 (fresh data,
/// Bernstein, in the README of this folder), for every model and so for the prior's mixture; then Donsker and
/// Varadhan. Compare Tolstikhin and Seldin 2013.
[[nodiscard]] BoundResult bernstein_pac_bayes_bound(const PacBayes& input, double deviation, double lambda);

/// KL of N(mean, sigma^2 I) from N(prior_mean, sigma^2 I): squared_distance / (2 sigma^2).
[[nodiscard]] double gaussian_divergence(double squared_distance, double sigma);

/// A stochastic one-of-T gate that is locally differentially private: g_i(x) <= exp(epsilon) g_i(x') for all
/// x, x'.
struct PrivateGate {
    double samples = 1;
    double gibbs_loss = 0;  ///< in [0, 1]
    double experts = 1;
    double epsilon = 0;
    double gate_entropy = 0;  ///< nats, of the gate at any fixed input
    double divergence = 0;    ///< sum_i g_i KL_i of the experts, nats
    double delta = 0.05;
};

/// exp(eps) kl_inverse(exp(eps) L_S, (ln T - H + KL + ln(2 sqrt(n)/delta))/n). Source: derived here for the
/// setting of arXiv 2410.10397, whose theorems were not readable.
[[nodiscard]] BoundResult private_gate_bound(const PrivateGate& input);
/// The same with Pinsker's inequality in place of the kl inverse: exp(eps) (exp(eps) L_S + sqrt(./(2n))).
[[nodiscard]] BoundResult private_gate_pinsker_bound(const PrivateGate& input);
/// The exact epsilon of a softmax over `experts` logits in [-clip, clip].
[[nodiscard]] double softmax_gate_epsilon(double clip, double experts);

}  // namespace moesaic
