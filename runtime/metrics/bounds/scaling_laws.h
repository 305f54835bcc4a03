// Fitted laws of loss against size and data, and a trade-off of active experts: predictions, no certificates.
#pragma once

#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

/// log10 L = a log10 N + b log10 E' + c log10 N log10 E' + d, 1/E' = 1/(E - 1 + 1/(1/E_s - 1/E_m)) + 1/E_m;
/// nats per token. Default: the published S-BASE fit. Source: Clark et al., arXiv 2202.01169, equation 3.
struct ClarkLaw {
    double a = -0.082, b = -0.108, c = 0.009, d = 1.104, start = 1.847, limit = 314.478;
};
/// Details: saturated_experts (E'), dense_equivalent (parameters of a dense model of that loss).
[[nodiscard]] BoundResult clark_loss(double parameters, double experts, const ClarkLaw& law = {});

/// c + (g/G^gamma + a)/N^alpha + b/D^beta for 64 experts per expansion; `parameters` N, `tokens` D,
/// granularity G. Source: Krajewski et al., arXiv 2402.07871; coefficients from memory, not checked.
[[nodiscard]] BoundResult krajewski_loss(double parameters, double tokens, double granularity);

/// 35.91 E'^-0.2285 N^-(0.1889 - 0.0098 ln E') + 35.98 E'^0.5529 D^-(0.1775 + 0.0259 ln E') + 1.3637 with N
/// active parameters without embeddings. Source: Ludziejewski et al., arXiv 2502.05172; signs restored and
/// the two constants of E' from memory, not checked.
[[nodiscard]] BoundResult ludziejewski_loss(double active_parameters, double tokens, double experts);

/// Loss with repeated data: U unique of D processed tokens. Details: effective_tokens. Source: Muennighoff et
/// al., arXiv 2305.16264, constants as in its code.
[[nodiscard]] BoundResult data_constrained_loss(double parameters, double unique_tokens, double tokens);
/// U + r U (1 - exp(-(D/U - 1)/r)): what D tokens of which U are unique are worth in fresh ones.
[[nodiscard]] double effective_tokens(double unique_tokens, double tokens, double decay = 15.4);

/// Where approximation a (s/k)^p meets estimation b sqrt(2 d_N k (1 + ln(T/k))/m): the whole k in 1..T that
/// minimises their sum. Ours; not the law of arXiv 2410.13964, whose text was not readable.
struct ActiveExpertsTradeOff {
    double samples = 1, experts = 1, natarajan = 1;
    double complexity = 1;                                   ///< s: elementary rules a token must combine
    double approximation = 1.0 / 16, power = 1, weight = 1;  ///< a, p, b
};
/// Value: k. Details: objective.
[[nodiscard]] BoundResult best_active_experts(const ActiveExpertsTradeOff& input);
/// The continuous optimum with ell = 2 d_N (1 + ln(T/k)) held fixed, clipped to [1, experts].
[[nodiscard]] double continuous_active_experts(const ActiveExpertsTradeOff& input, double ell);

}  // namespace moesaic
