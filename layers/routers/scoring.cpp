#include "layers/routers/scoring.h"

namespace moesaic {

Scoring::Scoring(const ModelSpec& spec)
    : top_k_(spec.top_k),
      experts_(spec.experts),
      router_(spec.router),
      balance_(spec.balance),
      sigmoid_(spec.router.score == RouterScore::sigmoid),
      over_choices_(spec.router.normalize || spec.router.score == RouterScore::softmax_over_top_k) {}

Routing Scoring::route(StepContext& context, const LayerInput& in, Tensor logits, RouterSaved& saved,
                       ConstTensorView bias) const {
    Backend& backend = context.backend;
    const i64 tokens = logits.rows();
    const DType real = logits.dtype();
    saved.probability = backend.allocate(logits.shape(), real);
    saved.log_sum_exp = backend.allocate({tokens}, real);
    Tensor score = sigmoid_ ? backend.allocate(logits.shape(), real) : Tensor();
    Routing routing{backend.allocate({tokens, top_k_}, DType::int32),
                    backend.allocate({tokens, top_k_}, real)};
    saved.sums = allocate_router_sums(backend, balance_, experts_, tokens, in.seq_len);
    backend.route(context.compute, {.logits = logits,
                                    .bias = bias,
                                    .sigmoid = sigmoid_,
                                    .over_choices = over_choices_,
                                    .weight_scale = router_.scale,
                                    .groups = router_.groups,
                                    .top_groups = router_.top_groups,
                                    .group_score = router_.group_score,
                                    .rows_per_object = saved.sums->rows_per_object,
                                    .counted = saved.sums->counted,
                                    .score = score,
                                    .probability = saved.probability,
                                    .log_sum_exp = saved.log_sum_exp,
                                    .index = routing.expert,
                                    .weight = routing.weight,
                                    .counts = saved.sums->counts,
                                    .balance_counts = saved.sums->balance_counts,
                                    .probability_sum = saved.sums->probability_sum,
                                    .weight_sum = saved.sums->weight_sum,
                                    .load_sum = saved.sums->load_sum,
                                    .z_sum = saved.sums->z_sum});
    if (sigmoid_) saved.logits = std::move(logits);
    return routing;
}

void Scoring::score(StepContext& context, Tensor logits, RouterSaved& saved) const {
    Backend& backend = context.backend;
    saved.probability = backend.allocate(logits.shape(), logits.dtype());
    saved.log_sum_exp = backend.allocate({logits.rows()}, logits.dtype());
    if (sigmoid_) {
        saved.sigmoid = backend.allocate(logits.shape(), logits.dtype());
        backend.sigmoid_scores(context.compute, {.logits = logits,
                                                 .score = saved.sigmoid,
                                                 .probability = saved.probability,
                                                 .log_sum_exp = saved.log_sum_exp});
    } else {
        backend.row_softmax(
            context.compute,
            {.logits = logits, .probability = saved.probability, .log_sum_exp = saved.log_sum_exp});
    }
    saved.logits = std::move(logits);
}

Tensor Scoring::choose(StepContext& context, const RouterSaved& saved) const {
    // Logits rank as their softmax does, and still where it underflows; groups and biases speak of scores.
    const bool by_logits = over_choices_ && !sigmoid_ && router_.groups == 1;
    const Tensor& scores = sigmoid_ ? saved.sigmoid : by_logits ? saved.logits : saved.probability;
    Tensor expert = context.backend.allocate({scores.rows(), top_k_}, DType::int32);
    Tensor value = context.backend.allocate({scores.rows(), top_k_}, scores.dtype());  // nobody reads it
    context.backend.top_k(context.compute, {.scores = scores,
                                            .index = expert,
                                            .value = value,
                                            .groups = router_.groups,
                                            .top_groups = router_.top_groups,
                                            .group_score = router_.group_score});
    return expert;
}

Tensor Scoring::choose_by(StepContext& context, ConstTensorView scores) const {
    Tensor expert = context.backend.allocate({scores.rows(), top_k_}, DType::int32);
    Tensor value = context.backend.allocate({scores.rows(), top_k_}, scores.dtype);  // nobody reads it
    context.backend.top_k(context.compute, {.scores = scores, .index = expert, .value = value});
    return expert;
}

Routing Scoring::weigh(StepContext& context, Tensor expert, RouterSaved& saved) const {
    Backend& backend = context.backend;
    const bool softmax_over_choices = over_choices_ && !sigmoid_;
    const Tensor& scores = sigmoid_ ? saved.sigmoid : softmax_over_choices ? saved.logits : saved.probability;
    const Shape shape = expert.shape();
    Tensor weight = backend.allocate(shape, scores.dtype());
    Tensor chosen = softmax_over_choices ? backend.allocate(shape, scores.dtype()) : Tensor();
    backend.gather_choices(
        context.compute,
        {.scores = scores, .index = expert, .value = softmax_over_choices ? chosen : weight});
    if (softmax_over_choices) {
        Tensor log_sum_exp = backend.allocate({shape.rows()}, scores.dtype());  // nobody reads it
        backend.row_softmax(context.compute,
                            {.logits = chosen, .probability = weight, .log_sum_exp = log_sum_exp});
    }
    if (sigmoid_ && over_choices_) {
        backend.normalize_rows(context.compute, {.x = weight, .scale = router_.scale});
    } else if (router_.scale != 1) {
        backend.scale(context.compute, router_.scale, weight);
    }
    saved.sigmoid.reset();
    if (!sigmoid_) saved.logits.reset();
    return {std::move(expert), std::move(weight)};
}

Tensor Scoring::d_logits(StepContext& context, const Routing& routing, ConstTensorView d_weight,
                         const BalanceTarget& target, const RouterSaved& saved) const {
    Tensor d_logits = context.backend.allocate(saved.probability.shape(), saved.probability.dtype());
    context.backend.router_backward(context.compute,
                                    {.probability = saved.probability,
                                     .log_sum_exp = saved.log_sum_exp,
                                     .sigmoid_logits = sigmoid_ ? saved.logits.view() : ConstTensorView(),
                                     .index = routing.expert,
                                     .weight = routing.weight,
                                     .d_weight = d_weight,
                                     .balance_factor = target.factor,
                                     .rows_per_object = target.rows_per_object,
                                     .over_choices = over_choices_,
                                     .weight_scale = router_.scale,
                                     .z_scale = target.z_scale,
                                     .d_logits = d_logits});
    return d_logits;
}

}  // namespace moesaic
