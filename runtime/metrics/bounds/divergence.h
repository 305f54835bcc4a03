// Divergences of two coins, their inverses, and binomial tails: what bounds for losses in [0, 1] are made of.
#pragma once

namespace moesaic {

/// kl(q || p) of two coins with chances q and p in [0, 1], nats; keeps its relative precision near p = q.
[[nodiscard]] double binary_kl(double q, double p);
/// The largest p >= q with kl(q || p) <= nats, by bisection to 1e-15 relative, rounded upwards. Edge cases:
/// nats 0 gives q, q = 0 gives 1 - exp(-nats), q = 1 gives 1.
[[nodiscard]] double kl_inverse(double q, double nats);

/// P(X <= successes) for X binomial with `trials` (whole, up to 1e12) and chance p in [0, 1];
/// O(sqrt(trials)).
[[nodiscard]] double binomial_cdf(double successes, double trials, double p);
/// The p at which P(X <= errors) = delta: the upper limit of Clopper and Pearson (1934), equal to
/// BetaQuantile(1 - delta; errors + 1, trials - errors). 1 where every trial is an error.
[[nodiscard]] double clopper_pearson_upper(double errors, double trials, double delta);

}  // namespace moesaic
