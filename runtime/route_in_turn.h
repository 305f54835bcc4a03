// A router's forward by simpler operations, which are its definition.
#pragma once

#include "runtime/backend.h"

namespace moesaic {

/// Whether the logits themselves are what choices are made by: they rank as their softmax does, and still
/// where that underflows; groups and biases speak of scores.
[[nodiscard]] inline bool chooses_by_logits(const Route& route) {
    return route.over_choices && !route.sigmoid && route.groups == 1;
}
[[nodiscard]] RowSoftmax softmax_of(const Route& route);
[[nodiscard]] SigmoidScores sigmoid_scores_of(const Route& route);
/// The scores of the choices go to the weights.
[[nodiscard]] TopK top_k_of(const Route& route);
[[nodiscard]] RouterSums sums_of(const Route& route);

void route_in_turn(Backend& backend, Stream& stream, const Route& route);

}  // namespace moesaic
