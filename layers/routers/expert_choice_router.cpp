#include "layers/routers/expert_choice_router.h"

#include <algorithm>

namespace moesaic {

ExpertChoiceRouter::ExpertChoiceRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : experts_(spec.experts),
      top_k_(spec.top_k),
      gate_(spec, layer, "mlp.gate.weight", store),
      scoring_(spec) {}

Routing ExpertChoiceRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    scoring_.score(context, gate_.logits(context, in.x), saved);
    const i64 take = std::min((in.seq_len * top_k_ + experts_ - 1) / experts_, in.seq_len);
    Tensor expert = context.backend.allocate({in.x.rows(), experts_}, DType::int32);
    context.backend.choose_tokens(
        context.compute,
        {.scores = saved.probability, .index = expert, .rows_per_object = in.seq_len, .take = take});
    Routing routing = scoring_.weigh(context, std::move(expert), saved);
    routing.most_choices = in.x.rows() / in.seq_len * experts_ * take;
    return routing;
}

void ExpertChoiceRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                                  ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                                  TensorView dx) const {
    gate_.backward(context, in.x, scoring_.d_logits(context, routing, d_weight, target, saved), dx);
}

}  // namespace moesaic
