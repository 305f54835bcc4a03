// The published bound for sparse mixtures of experts: a trend index, not a certificate.
#pragma once

#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

struct PublishedBound {
    double samples = 1;     ///< m, i.i.d. training examples
    double experts = 1;     ///< T
    double top_k = 1;       ///< k, 0..T
    double lipschitz = 1;   ///< C of the loss in the prediction
    double rademacher = 0;  ///< R_m(H) of the experts' class on m points
    double natarajan = 0;   ///< d_N of the class of masks
    double delta = 0.05;
    double range = 1;  ///< of the loss; only for `vacuous`
    /// ln C(T, k) itself instead of k (1 + ln(T/k)) above it.
    bool exact_binomial = false;
};

/// 4 C R_m(H) + 2 sqrt((2 d_N K + d_N ln(2m) + ln(4/delta)) / (2m)), K = k (1 + ln(T/k)) or ln C(T, k); a
/// bound of true minus empirical loss. Terms: expert, routing. Source: Zhao, Wang and Wang, arXiv 2403.17404,
/// as restated in the literature; the right-hand side stands inside O(.) there, and its proof was not
/// readable.
[[nodiscard]] BoundResult published_bound(const PublishedBound& input);

}  // namespace moesaic
