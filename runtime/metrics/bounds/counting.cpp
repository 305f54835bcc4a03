#include "runtime/metrics/bounds/counting.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

constexpr double kLn2 = std::numbers::ln2;
constexpr double kPi = std::numbers::pi;

double ln_factorial(double n) {
    return n < 1 ? 0 : stirling_error(n) + 0.5 * std::log(2 * kPi * n) + n * std::log(n) - n;
}

/// Signs of `comparisons` per example: how a router that computes logits can order and space them.
double ln_sign_patterns(double samples, const RouterClass& router, double comparisons) {
    if (router.hidden.empty()) {
        const double width = router.inputs + (router.bias ? 1 : 0);
        return ln_cells(samples * comparisons, (router.experts - 1) * width);
    }
    // One factor per layer: `units` tests per example, polynomials of degree `layer` in the `weights` so far.
    double nats = 0, weights = 0, below = router.inputs;
    const std::size_t layers = router.hidden.size() + 1;
    for (std::size_t layer = 1; layer <= layers; ++layer) {
        const bool last = layer == layers;
        const double width = last ? router.experts : router.hidden[layer - 1];
        weights += (below + 1) * width;
        below = width;
        const double units = last ? comparisons : width;
        const double argument = 2 * std::numbers::e * samples * units * static_cast<double>(layer) / weights;
        nats += kLn2 + weights * std::log(std::max(2.0, argument));
    }
    return nats;
}

double pairs(const RouterClass& router) {
    return router.experts * (router.experts - 1) / 2;
}

}  // namespace

double stirling_error(double n) {
    MOESAIC_ASSERT(n >= 1, "n {}", n);
    if (n < 16) {
        double factorial = 1;
        for (double i = 2; i <= n; ++i) factorial *= i;
        return std::log(factorial) - 0.5 * std::log(2 * kPi * n) - n * std::log(n) + n;
    }
    const double s = 1 / (n * n);
    return (1.0 / 12 - s * (1.0 / 360 - s * (1.0 / 1260 - s * (1.0 / 1680 - s / 1188)))) / n;
}

double ln_binomial(double n, double k) {
    MOESAIC_ASSERT(k >= 0 && k <= n, "C({}, {})", n, k);
    k = std::min(k, n - k);
    if (k <= 0) return 0;
    // Every part keeps its relative precision; differences of ln n! would lose it from n = 1e6 on.
    return stirling_error(n) - stirling_error(k) - stirling_error(n - k) +
           0.5 * std::log(n / (2 * kPi * k * (n - k))) + k * std::log(n / k) - (n - k) * std::log1p(-k / n);
}

double ln_binomial_relaxed(double n, double k) {
    MOESAIC_ASSERT(k >= 0 && k <= n, "C({}, {})", n, k);
    return k <= 0 ? 0 : k * (1 + std::log(n / k));
}

double ln_ordered_choices(double n, double k) {
    return ln_binomial(n, k) + ln_factorial(k);
}

double ln_cells(double tests, double dimension) {
    if (dimension <= 0 || tests <= 0) return 0;
    if (tests <= dimension) return tests * kLn2;
    return std::min(tests * kLn2, dimension * (1 + std::log(tests / dimension)));
}

double ln_cells_exact(double tests, double dimension) {
    if (dimension <= 0 || tests <= 0) return 0;
    double total = 0;  // ln C(tests, 0)
    for (double i = 1; i <= std::min(tests, dimension); ++i) {
        const double next = ln_binomial(tests, i);
        total = std::max(total, next) + std::log1p(std::exp(-std::abs(total - next)));
    }
    return total;
}

double ln_cells_cover(double hyperplanes, double dimension) {
    if (dimension <= 0 || hyperplanes <= 0) return 0;
    if (hyperplanes <= dimension) return hyperplanes * kLn2;
    if (dimension == 1) return kLn2;
    const double rest = dimension - 1;
    return std::min(hyperplanes * kLn2, kLn2 + rest * (1 + std::log((hyperplanes - 1) / rest)));
}

double ln_cells_cover_exact(double hyperplanes, double dimension) {
    return dimension <= 0 || hyperplanes <= 0 ? 0 : kLn2 + ln_cells_exact(hyperplanes - 1, dimension - 1);
}

double ln_natarajan(double samples, double dimension, double ln_labels) {
    return dimension * std::log(samples) + 2 * dimension * ln_labels;
}

double ln_masks(double samples, const RouterClass& router) {
    if (router.experts <= 1 || router.top_k <= 0 || router.top_k >= router.experts) return 0;
    const double ln_labels = ln_binomial(router.experts, router.top_k);
    const double patterns = router.natarajan ? ln_natarajan(samples, *router.natarajan, ln_labels)
                                             : ln_sign_patterns(samples, router, pairs(router));
    return std::min(patterns, samples * ln_labels);
}

double ln_ordered_masks(double samples, const RouterClass& router) {
    if (router.experts <= 1 || router.top_k <= 0) return 0;
    const double cap = samples * ln_ordered_choices(router.experts, router.top_k);
    return std::min(cap, ln_sign_patterns(samples, router, pairs(router)));
}

double ln_gate_cells(double samples, const RouterClass& router, double levels, double normalized) {
    if (router.experts <= 1 || router.top_k <= 0) return 0;
    const double cap =
        samples * (ln_binomial(router.experts, router.top_k) + normalized * std::log1p(levels));
    return std::min(cap, ln_sign_patterns(samples, router, pairs(router) * (2 * levels + 1)));
}

}  // namespace moesaic
