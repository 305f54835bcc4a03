// Counting in logarithms: binomials, cells of arrangements, and the routing patterns a router can make.
#pragma once

#include <optional>
#include <vector>

namespace moesaic {

/// ln n! - [ln sqrt(2 pi n) + n ln n - n] for whole n >= 1: Stirling's error. Source: C. Loader, "Fast and
/// accurate computation of binomial probabilities", 2000.
[[nodiscard]] double stirling_error(double n);
/// ln C(n, k), 0 <= k <= n, whole; relative error some 1e-15 for n up to 1e15.
[[nodiscard]] double ln_binomial(double n, double k);
/// k (1 + ln(n/k)) >= ln C(n, k); 0 at k = 0. At k = n it is n, where the binomial has 0.
[[nodiscard]] double ln_binomial_relaxed(double n, double k);
/// ln(n! / (n-k)!): ordered choices of k out of n.
[[nodiscard]] double ln_ordered_choices(double n, double k);

/// Upper bound of the logarithm of the number of sign patterns of `tests` tests {g(z) + psi(z) >= 0} whose g
/// run through a vector space of `dimension`; ties included (Sauer's lemma: sum of C(tests, i), i <=
/// dimension).
[[nodiscard]] double ln_cells(double tests, double dimension);
/// The logarithm of that sum itself, O(dimension); for checks and small cases.
[[nodiscard]] double ln_cells_exact(double tests, double dimension);
/// Open cells of that many hyperplanes through the origin: bound of 2 sum of C(hyperplanes-1, i), i <
/// dimension (Cover 1965). Tighter than ln_cells, and valid only where ties can be perturbed away (a router
/// with biases).
[[nodiscard]] double ln_cells_cover(double hyperplanes, double dimension);
[[nodiscard]] double ln_cells_cover_exact(double hyperplanes, double dimension);

/// Patterns of a class with `labels` classes (ln_labels its logarithm) of Natarajan dimension `dimension` on
/// `samples` points: dimension ln(samples) + 2 dimension ln_labels (Shalev-Shwartz and Ben-David,
/// Lemma 29.4).
[[nodiscard]] double ln_natarajan(double samples, double dimension, double ln_labels);

/// A class of routers: which functions x -> `experts` logits it holds. Whole numbers throughout.
struct RouterClass {
    double experts = 1, top_k = 1;
    double inputs = 0;           ///< width of what the router reads
    bool bias = true;            ///< of a linear router; a ReLU router always has them
    std::vector<double> hidden;  ///< widths of a ReLU router's hidden layers; empty: linear
    /// Instead of `inputs` and `hidden`: the Natarajan dimension of the masks, all that is known. Counts
    /// masks alone, no order and no gate cells.
    std::optional<double> natarajan;
};

/// Upper bound of the number of masks (nats) the class makes on `samples` points. 0 where there is nothing to
/// choose: experts <= 1, top_k <= 0, top_k >= experts. Linear: signs of all differences of two logits, never
/// more than samples ln C(experts, top_k). ReLU: growth of piecewise linear networks (Bartlett, Harvey, Liaw,
/// Mehrabian 2019, one breakpoint), the last layer replaced by the comparisons.
[[nodiscard]] double ln_masks(double samples, const RouterClass& router);
/// The same for masks with the order of the chosen; not 0 at top_k = experts.
[[nodiscard]] double ln_ordered_masks(double samples, const RouterClass& router);
/// Masks with every gap between logits known up to steps of eta, `levels` (R) steps each way; `normalized`
/// (g) experts share the softmax. Cap: samples (ln C(experts, top_k) + g ln(R+1)).
[[nodiscard]] double ln_gate_cells(double samples, const RouterClass& router, double levels,
                                   double normalized);

}  // namespace moesaic
