// Mixtures of ReLU networks routed to the nearest prototype (MoMLP): VC dimension and sizes.
#pragma once

#include <vector>

#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

/// `experts` networks of layer widths inputs = widths.front(), ..., widths.back() = outputs (ReLU or PReLU
/// between, biases), one per input: that of the nearest of `experts` prototypes.
struct PrototypeMixture {
    double experts = 1;
    std::vector<double> widths;
};

/// ln of the number of sign patterns on `samples` points, at most: routing (a linear router with biases) and
/// experts. Terms: routing_nats, expert_nats.
[[nodiscard]] BoundTerms prototype_mixture_growth(double samples, const PrototypeMixture& mixture);

/// An upper bound of the VC dimension: the least number of points whose growth stays below 2^points. Not a
/// probability; never vacuous. Source: derived here for the model class of arXiv 2402.03460, whose own
/// statement, of order L max(n L, J W), hides its logarithms.
[[nodiscard]] BoundResult prototype_mixture_vc(const PrototypeMixture& mixture);

/// True minus empirical 0-1 loss <= sqrt(2 ln growth(m)/m) + sqrt(ln(1/delta)/(2m)).
[[nodiscard]] BoundResult prototype_mixture_gap(const PrototypeMixture& mixture, double samples,
                                                double delta);

/// How many experts of `active` parameters reach uniform error `error` on Lipschitz functions of `inputs`
/// variables on the unit cube: (lipschitz/error)^inputs / active^2 (deep networks), at least 1. Constants are
/// left out. Details: total parameters. Source: derived here; at active = 1/error the numbers of arXiv
/// 2402.03460.
[[nodiscard]] BoundResult prototype_mixture_size(double lipschitz, double error, double inputs,
                                                 double active);
/// Cells, one constant expert each, that reach it exactly: ceil(lipschitz sqrt(inputs)/(2 error))^inputs.
[[nodiscard]] double constant_experts(double lipschitz, double error, double inputs);

}  // namespace moesaic
