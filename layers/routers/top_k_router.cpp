#include "layers/routers/top_k_router.h"

#include <algorithm>

namespace moesaic {

TopKRouter::TopKRouter(const ModelSpec& spec, int layer, ParameterStore& store)
    : experts_(spec.experts),
      top_k_(spec.top_k),
      over_choices_(spec.router.normalize || spec.router.score == RouterScore::softmax_over_top_k),
      balance_(spec.balance) {
    Parameter gate;
    gate.name = block_parameter_name(layer, "mlp.gate.weight");
    gate.shape = {experts_, spec.width};
    gate.layer = layer;
    gate.init_std = spec.init_std;
    gate_ = store.declare(std::move(gate));
}

Routing TopKRouter::route(StepContext& context, const LayerInput& in, RouterSaved& saved) const {
    Backend& backend = context.backend;
    const i64 tokens = in.x.rows();
    const DType real = accumulation_type(in.x.dtype);  // a bf16 model routes in f32
    Tensor logits = backend.allocate({tokens, experts_}, real);
    saved.probability = backend.allocate({tokens, experts_}, real);
    saved.log_sum_exp = backend.allocate({tokens}, real);
    Routing routing{backend.allocate({tokens, top_k_}, DType::int32),
                    backend.allocate({tokens, top_k_}, real)};
    backend.gemm(context.compute, {.a = in.x, .b = gate_.value(), .c = logits, .trans_b = true});
    backend.row_softmax(
        context.compute,
        {.logits = logits, .probability = saved.probability, .log_sum_exp = saved.log_sum_exp});
    if (over_choices_) {
        Tensor chosen = backend.allocate({tokens, top_k_}, real);  // logits
        Tensor log_sum_exp = backend.allocate({tokens}, real);     // of the chosen; nobody reads it
        backend.top_k(context.compute, {.scores = logits, .index = routing.expert, .value = chosen});
        backend.row_softmax(context.compute,
                            {.logits = chosen, .probability = routing.weight, .log_sum_exp = log_sum_exp});
    } else {
        backend.top_k(context.compute,
                      {.scores = saved.probability, .index = routing.expert, .value = routing.weight});
    }
    sum_up(context, in.seq_len, routing, saved);
    return routing;
}

void TopKRouter::sum_up(StepContext& context, i64 seq_len, const Routing& routing, RouterSaved& saved) const {
    Backend& backend = context.backend;
    RouterTotals& totals = saved.totals;
    totals.tokens = saved.probability.rows();
    totals.choices = totals.tokens * top_k_;
    totals.rows_per_object =
        balance_.scope == BalanceScope::sequence ? seq_len : std::max<i64>(totals.tokens, 1);
    const i64 objects = totals.tokens / totals.rows_per_object;
    totals.counts = backend.allocate({objects, experts_}, DType::int64);
    Tensor probability_sum = backend.allocate({objects, experts_}, DType::f64);
    Tensor z_sum = backend.allocate({objects}, DType::f64);
    Tensor weight_sum = backend.allocate({objects}, DType::f64);
    backend.router_sums(context.compute, {.probability = saved.probability,
                                          .log_sum_exp = saved.log_sum_exp,
                                          .index = routing.expert,
                                          .weight = routing.weight,
                                          .rows_per_object = totals.rows_per_object,
                                          .counts = totals.counts,
                                          .probability_sum = probability_sum,
                                          .z_sum = z_sum,
                                          .weight_sum = weight_sum});
    const auto to_host = [&]<class T>(const Tensor& from, std::vector<T>& to) {
        to.resize(static_cast<std::size_t>(from.elements()));
        if (!to.empty()) backend.copy(context.compute, from, view_of(to.data(), from.shape()));
    };
    to_host(totals.counts, totals.host_counts);
    to_host(probability_sum, totals.probability_sum);
    to_host(z_sum, totals.z_sum);
    to_host(weight_sum, totals.weight_sum);
}

void TopKRouter::backward(StepContext& context, const LayerInput& in, const Routing& routing,
                          ConstTensorView d_weight, const BalanceTarget& target, RouterSaved& saved,
                          TensorView dx) const {
    Backend& backend = context.backend;
    const bool global = balance_.scope == BalanceScope::global;
    const ConstTensorView counts = global ? target.global_counts : saved.totals.counts;
    const double object_tokens = global ? target.tokens : static_cast<double>(saved.totals.rows_per_object);
    // d loss_aux / d p[t,e] = E / (k N T_o) * count_e; d loss_z / d lse^2 = 1 / N.
    const double per_count =
        static_cast<double>(experts_) / (static_cast<double>(top_k_) * target.tokens * object_tokens);
    Tensor d_logits = backend.allocate(saved.probability.shape(), saved.probability.dtype());  // [T,E]
    backend.router_backward(context.compute, {.probability = saved.probability,
                                              .log_sum_exp = saved.log_sum_exp,
                                              .index = routing.expert,
                                              .weight = routing.weight,
                                              .d_weight = d_weight,
                                              .counts = counts,
                                              .rows_per_object = saved.totals.rows_per_object,
                                              .over_choices = over_choices_,
                                              .balance_scale = balance_.aux * per_count,
                                              .z_scale = balance_.z / target.tokens,
                                              .d_logits = d_logits});
    backend.gemm(context.compute, {.a = d_logits, .b = gate_.value(), .c = dx, .accumulate = true});
    backend.gemm(context.compute,
                 {.a = d_logits, .b = in.x, .c = gate_.grad(), .trans_a = true, .accumulate = true});
}

}  // namespace moesaic
