#include "runtime/route_in_turn.h"

namespace moesaic {

RowSoftmax softmax_of(const Route& route) {
    return {.logits = route.logits, .probability = route.probability, .log_sum_exp = route.log_sum_exp};
}

SigmoidScores sigmoid_scores_of(const Route& route) {
    return {.logits = route.logits,
            .score = route.score,
            .probability = route.probability,
            .log_sum_exp = route.log_sum_exp};
}

TopK top_k_of(const Route& route) {
    const ConstTensorView scores = route.sigmoid              ? route.score
                                   : chooses_by_logits(route) ? route.logits
                                                              : route.probability;
    return {.scores = scores,
            .index = route.index,
            .value = route.weight,
            .bias = route.bias,
            .groups = route.groups,
            .top_groups = route.top_groups,
            .group_score = route.group_score};
}

RouterSums sums_of(const Route& route) {
    return {.probability = route.probability,
            .log_sum_exp = route.log_sum_exp,
            .load_probability = {},
            .index = route.index,
            .weight = route.weight,
            .rows_per_object = route.rows_per_object,
            .counted = route.counted,
            .counts = route.counts,
            .balance_counts = route.balance_counts,
            .probability_sum = route.probability_sum,
            .weight_sum = route.weight_sum,
            .load_sum = route.load_sum,
            .z_sum = route.z_sum};
}

void route_in_turn(Backend& backend, Stream& stream, const Route& route) {
    if (route.sigmoid) {
        backend.sigmoid_scores(stream, sigmoid_scores_of(route));
    } else {
        backend.row_softmax(stream, softmax_of(route));
    }
    backend.top_k(stream, top_k_of(route));
    if (route.over_choices && !route.sigmoid) {
        const Shape shape = route.index.shape;
        Tensor chosen = backend.allocate(shape, route.logits.dtype);
        Tensor log_sum_exp = backend.allocate({shape.rows()}, route.logits.dtype);  // nobody reads it
        backend.gather_choices(stream, {.scores = route.logits, .index = route.index, .value = chosen});
        backend.row_softmax(stream,
                            {.logits = chosen, .probability = route.weight, .log_sum_exp = log_sum_exp});
    }
    if (route.over_choices && route.sigmoid) {
        backend.normalize_rows(stream, {.x = route.weight, .scale = route.weight_scale});
    } else if (route.weight_scale != 1) {
        backend.scale(stream, route.weight_scale, route.weight);
    }
    backend.router_sums(stream, sums_of(route));
}

}  // namespace moesaic
