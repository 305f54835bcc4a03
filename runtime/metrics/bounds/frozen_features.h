// Theorem 2: a routed last layer on frozen features, with its complexity measured on the sample.
#pragma once

#include <span>

#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

struct FrozenFeatures {
    double samples = 1;
    double delta = 0.05;
    double complexity = 0;  ///< R-hat of last_layer_complexity, measured on this sample
    double lipschitz = 1;   ///< C for scalar output, L2 for K classes
    double classes = 0;     ///< 0: scalar output
    double range = 1;
};

/// True minus empirical loss <= 2 C R (scalar) or 2 sqrt2 L2 R (K classes) + 3 c sqrt(ln(2/delta)/(2m)).
/// Features and router do not depend on the sample, gate weights are arbitrary. Terms: expert, confidence.
/// Source: Moesaic; proof in the README of this folder.
[[nodiscard]] BoundResult frozen_features_bound(const FrozenFeatures& input);

/// What last_layer_complexity reads: `samples` examples, each with `width` features and `top_k` (expert,
/// weight).
struct RoutedFeatures {
    std::span<const double> features;  ///< [samples, width]
    std::span<const int> experts;      ///< [samples, top_k]
    std::span<const double> weights;   ///< [samples, top_k]
    int width = 0, top_k = 0, expert_count = 0;
};

/// (B_F/m) sqrt(sum_j ||sum_i w_ij sigma_i phi_i^T||_F^2), averaged over draws of signs; `signs` is +-1
/// [draws, samples, outputs], outputs = 1 for scalar output and K-1 for K classes. 16 draws suffice.
[[nodiscard]] double last_layer_complexity(const RoutedFeatures& data, std::span<const double> signs,
                                           int outputs, double stacked_norm);

/// By how much an average over `draws` sign vectors misses the expectation, at most, with probability
/// 1-delta, two-sided: b sqrt(2 ln(2/delta) / (m draws)) for outputs in [-b, b].
[[nodiscard]] double sign_average_tolerance(double output_bound, double samples, double draws, double delta);

}  // namespace moesaic
