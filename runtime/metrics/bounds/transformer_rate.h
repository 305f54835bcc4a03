// The published rate for transformers with expert layers: a trend index.
#pragma once

#include "runtime/metrics/bounds/bound_result.h"

namespace moesaic {

struct TransformerRate {
    double samples = 1;               ///< n sequences
    double layers = 1;                ///< L_T
    double sequence_length = 1;       ///< l
    double experts = 1, top_k = 1;    ///< M, k
    double attention_parameters = 0;  ///< of one layer
    double expert_parameters = 0;     ///< of one expert
    double smoothness = 1;            ///< beta of the target
    double dimension = 1;             ///< intrinsic, of the inputs
};

/// N^(-2 beta/d) + N/n + L_T l k ln(e M/k)/n with N = L_T (P_attention + k P_expert): the order of the excess
/// squared loss. Terms: approximation, parameters, routing. Source: arXiv 2604.09175, as restated in its
/// public reviews; constants are hidden, and an estimation cost of active parameters alone is contradicted by
/// hash routing.
[[nodiscard]] BoundResult transformer_rate(const TransformerRate& input);

}  // namespace moesaic
