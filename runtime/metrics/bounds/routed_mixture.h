// Our bound for one routed layer (theorem 1): uniform, rank, softmax gates or a router that saw no sample.
#pragma once

#include <optional>
#include <vector>

#include "runtime/metrics/bounds/bound_result.h"
#include "runtime/metrics/bounds/counting.h"

namespace moesaic {

/// How the weights of the chosen experts come about.
enum class GateKind {
    uniform,      ///< 1/k each; also top-1 with weight 1
    rank,         ///< fixed numbers by rank among the chosen
    softmax,      ///< softmax over the chosen k
    softmax_all,  ///< softmax over all experts, then the chosen k of it
    frozen,       ///< router independent of the sample (hash, random, trained on other data); any weights
};
[[nodiscard]] std::string_view name_of(GateKind gate);

struct RoutedMixture {
    double samples = 1;  ///< m, i.i.d. training examples
    double tokens = 1;   ///< rows that an example routes, on average; its loss is the mean over them
    double delta = 0.05;
    RouterClass router;
    GateKind gate = GateKind::softmax;
    std::vector<double> rank_weights;  ///< v_1 >= ... >= v_k of rank gates

    /// Scalar output (classes 0): C of the loss in the output. Classes K: L2, the Lipschitz constant in the
    /// Euclidean norm of the K logits, the loss unchanged when a constant is added to all of them; sqrt2 for
    /// clipped cross-entropy, sqrt2/gamma for the ramp of margin gamma.
    double lipschitz = 1;
    double classes = 0;
    double range = 1;  ///< c: the loss lies in [0, c]

    /// B: cap of one expert's norm (Frobenius; product of the layers' for ReLU experts), or of its distance
    /// from weights fixed beforehand (linear experts only).
    double norm = 1;
    std::optional<double> stacked_norm;  ///< B_F = sqrt(sum of B_j^2); else sqrt(experts + shared) norm
    double expert_layers = 1;            ///< of bias-free ReLU experts; 1: linear
    double shared_experts = 0;           ///< experts with weight 1 for every token
    double radius = 1;                   ///< X: cap of ||x||, or its root mean square where `measured`
    std::optional<double> output_bound;  ///< b_h: cap of ||h_j(x)||; else norm * radius
    std::optional<double> k_eff;         ///< floor of 1 / sum_j w_j^2 of an example, softmax and frozen gates

    bool measured = false;   ///< the radius comes from the sample: costs 3 c sqrt(ln(2/delta)/(2m))
    bool two_sided = false;  ///< bound |gap| instead of the gap
    std::optional<bool> layers_below_frozen;
    std::optional<bool> caps_a_priori;    ///< norms and radius were fixed before the sample was seen
    std::optional<bool> experts_covered;  ///< as the assumption of that name says
};

/// With probability 1 - delta, for all routers and experts of the class: true minus empirical loss <= value.
/// Terms: expert, routing, gate, confidence.
///   expert      2 C B_F X / sqrt(kappa m), for K classes 2 sqrt2 L2 B_F X sqrt((K-1)/(kappa m)); of a scalar
///               times sqrt2 where an example routes several rows
///   routing     c sqrt(2 lnPi / m), lnPi = ln_masks, ln_ordered_masks, ln_gate_cells on all rows, or 0
///   gate        softmax: 4 C b_h ((e^eta - 1) + (g-1) e^(-R eta)), the least sum with routing over a grid
///   confidence  c sqrt(ln(1/delta)/(2m))
/// kappa: k (uniform), 1/sum v_r^2 (rank), k_eff or 1. Source: Moesaic; proof in the README of this folder.
[[nodiscard]] BoundResult routed_mixture_bound(const RoutedMixture& input);

/// tau of the gate cover: within one cell, softmax weights differ from the cell's representative by at most
/// 2 tau in the l1 norm. tau = (e^eta - 1) + (normalized - 1) e^(-levels eta).
[[nodiscard]] double gate_cover_radius(double eta, double levels, double normalized);
/// The representative: weights of the `chosen` experts (indices) from logits quantised to steps of eta below
/// the largest of those that the softmax runs over (`normalized`: indices).
[[nodiscard]] std::vector<double> gate_cover_weights(const std::vector<double>& logits,
                                                     const std::vector<int>& chosen,
                                                     const std::vector<int>& normalized, double eta,
                                                     double levels);

}  // namespace moesaic
