// Norm-based complexity of networks: measures to compare runs by, and norm bounds of Rademacher complexity.
#pragma once

#include <vector>

#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

/// Rademacher complexity of linear functions of norm at most `norm` on `samples` inputs of norm at most
/// `radius`: norm radius / sqrt(samples).
[[nodiscard]] double linear_rademacher(double norm, double radius, double samples);
/// Bias-free ReLU networks with `layers` layers whose Frobenius norms multiply to at most product_norm:
/// radius product_norm (sqrt(2 ln2 layers) + 1)/sqrt(samples). Source: Golowich, Rakhlin, Shamir 2018,
/// theorem 1.
[[nodiscard]] double golowich_rademacher(double product_norm, double layers, double radius, double samples);
/// E|mean of `samples` random signs|, the Rademacher complexity of constants in [-1, 1]; exact.
[[nodiscard]] double constant_rademacher(double samples);

/// Norms of one layer's weight matrix, out x in.
struct LayerNorms {
    double spectral = 1, frobenius = 1;
    double rows = 1;  ///< sum over rows (outputs) of their Euclidean norms: ||W^T||_{2,1}
};

/// prod s_l (sum_l (rows_l/s_l)^(2/3))^(3/2), and its limit where an s_l is zero. Source: Bartlett, Foster,
/// Telgarsky 2017, equation 1.2.
[[nodiscard]] double spectral_complexity(const std::vector<LayerNorms>& layers);

struct NormMeasure {
    std::vector<LayerNorms> layers;
    double samples = 1;
    double margin = 1;  ///< of the correct logit over the best other one
    double radius = 1;  ///< cap, or root mean square, of the norm of an input
    double width = 1;   ///< h: largest width of a layer; read by pac_bayes_norm_measure
};

/// spectral_complexity radius / (margin sqrt(samples)): the shape of the Bartlett bound, its constants and
/// logarithms left out. A measure, not a certificate: no probability.
[[nodiscard]] BoundResult spectral_norm_measure(const NormMeasure& input);
/// sqrt(B^2 L^2 h ln(L h) prod s_l^2 sum ||W_l||_F^2/s_l^2 / (margin^2 samples)): the shape of the bound of
/// Neyshabur, Bhojanapalli, Srebro 2018, theorem 1. A measure, not a certificate.
[[nodiscard]] BoundResult pac_bayes_norm_measure(const NormMeasure& input);

}  // namespace moesaic
