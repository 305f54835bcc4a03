#include "runtime/metrics/bounds/divergence.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/counting.h"

namespace moesaic {

namespace {

/// (1+u) ln(1+u) - u >= 0 for u >= -1; by its series where the difference would cancel.
double entropy_remainder(double u) {
    if (u <= -1) return 1;
    if (std::abs(u) > 0.1) return (1 + u) * std::log1p(u) - u;
    double sum = 0, power = -u;
    for (int i = 2; i < 40; ++i) {
        power *= -u;
        const double term = power / (i * (i - 1.0));
        sum += term;
        if (std::abs(term) < 1e-18 * std::abs(sum)) break;
    }
    return sum;
}

/// The point between low (where `inside`) and high (where not) at which `inside` ends; its upper neighbour.
template <class Inside>
double bisect(double low, double high, const Inside& inside) {
    while (high - low > 1e-15 * high) {
        const double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high) break;
        (inside(middle) ? low : high) = middle;
    }
    return high;
}

/// P(X = x) without the loss of digits that products of factorials and powers bring (Loader 2000).
double binomial_probability(double x, double trials, double p) {
    if (x <= 0) return std::exp(trials * std::log1p(-p));
    if (x >= trials) return std::exp(trials * std::log(p));
    const double rest = trials - x;
    return std::exp(stirling_error(trials) - stirling_error(x) - stirling_error(rest) -
                    trials * binary_kl(x / trials, p)) *
           std::sqrt(trials / (2 * std::numbers::pi * x * rest));
}

/// P(X <= x) for x below the mean: from P(X = x) downwards, all terms positive and falling.
double lower_tail(double x, double trials, double p) {
    double term = binomial_probability(x, trials, p), sum = 0;
    for (; x >= 0 && term > 1e-18 * sum; --x) {
        sum += term;
        term *= x / (trials - x + 1) * ((1 - p) / p);
    }
    return sum;
}

/// P(X > x) for x from the mean on: the same upwards.
double upper_tail(double x, double trials, double p) {
    double term = binomial_probability(x + 1, trials, p), sum = 0;
    for (++x; x <= trials && term > 1e-18 * sum; ++x) {
        sum += term;
        term *= (trials - x) / (x + 1) * (p / (1 - p));
    }
    return sum;
}

}  // namespace

double binary_kl(double q, double p) {
    MOESAIC_ASSERT(q >= 0 && q <= 1 && p >= 0 && p <= 1, "kl({} || {})", q, p);
    if (p == q) return 0;
    if (p <= 0 || p >= 1) return HUGE_VAL;
    return p * entropy_remainder((q - p) / p) + (1 - p) * entropy_remainder((p - q) / (1 - p));
}

double kl_inverse(double q, double nats) {
    MOESAIC_ASSERT(q >= 0 && q <= 1 && nats >= 0, "kl_inverse({}, {})", q, nats);
    if (q >= 1 || nats == 0) return q;
    if (q <= 0) return -std::expm1(-nats);
    return bisect(q, 1.0, [&](double p) { return binary_kl(q, p) <= nats; });
}

double binomial_cdf(double successes, double trials, double p) {
    MOESAIC_ASSERT(p >= 0 && p <= 1 && trials >= 0, "trials {} p {}", trials, p);
    if (successes < 0) return 0;
    if (successes >= trials || p <= 0) return 1;
    if (p >= 1) return 0;
    return successes < trials * p ? lower_tail(successes, trials, p) : 1 - upper_tail(successes, trials, p);
}

double clopper_pearson_upper(double errors, double trials, double delta) {
    MOESAIC_ASSERT(errors >= 0 && errors <= trials && trials >= 1 && trials <= 1e12, "{} errors of {}",
                   errors, trials);
    if (errors >= trials) return 1;
    if (errors <= 0) return -std::expm1(std::log(delta) / trials);
    // Chernoff's limit is never smaller, so it brackets.
    const double high = kl_inverse(errors / trials, -std::log(delta) / trials);
    return bisect(errors / trials, high, [&](double p) { return binomial_cdf(errors, trials, p) > delta; });
}

}  // namespace moesaic
