#include "layers/moe_layer.h"

#include <algorithm>

namespace moesaic {

namespace {

/// C: the receive budget, or all that the group can send to one rank where that is less.
i64 capacity_of(const ModelSpec& spec, const Mesh& mesh) {
    const i64 everything =
        mesh.expert_parallel() * spec.micro_tokens() * std::min<i64>(spec.top_k, mesh.local_experts());
    return std::min(receive_capacity(spec.micro_tokens(), spec.top_k, spec.receive_budget),
                    std::max<i64>(everything, 1));
}

}  // namespace

ExchangeSizes exchange_sizes(const ModelSpec& spec, const Mesh& mesh, DType dtype) {
    ExchangeSizes sizes;
    sizes.tokens = spec.micro_tokens();
    sizes.choices = spec.top_k;
    sizes.width = spec.width;
    sizes.capacity_rows = capacity_of(spec, mesh);
    sizes.dtype = dtype;
    return sizes;
}

std::unique_ptr<Exchange> make_exchange(const ModelSpec& spec, const Mesh& mesh, DType dtype) {
    return make_exchange(mesh, exchange_sizes(spec, mesh, dtype), spec.exchange);
}

MoELayer::MoELayer(const ModelSpec& spec, int layer, const Mesh& mesh, Exchange& exchange,
                   ParameterStore& store)
    : layer_(layer),
      router_(make_router(spec, layer, store)),
      exchange_(exchange),
      experts_(spec, layer, mesh.first_expert(), mesh.local_experts(), exchange.capacity_rows(), store) {}

Tensor MoELayer::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    if (context.phase != Phase::recompute) {
        saved.routing = router_->route(context, in, saved.router);
        saved.plan = exchange_.plan(context, saved.routing, layer_);
    }
    for (std::size_t round = 0; round < saved.plan.chunks.size(); ++round) {
        round_forward(context, in, round, saved);
    }
    return exchange_.finish_combine(context, saved.plan, saved.routing.weight, saved.exchange);
}

Tensor MoELayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                          Saved& saved) const {
    ExchangeBackward backward =
        exchange_.begin_backward(context, saved.plan, dy, saved.routing.weight, saved.exchange);
    // Ascending rounds: the experts' gradients add rows in the order of one round.
    for (std::size_t round = 0; round < saved.plan.chunks.size(); ++round) {
        round_backward(context, in, round, saved, backward);
    }
    ExchangeGradients gradients = exchange_.finish_backward(context, saved.plan, std::move(backward));
    router_->backward(context, in, saved.routing, gradients.d_weight, saved.balance, saved.router,
                      gradients.dx);
    return std::move(gradients.dx);
}

/// Collective over mesh.experts().
ExpertRows MoELayer::dispatch(StepContext& context, const LayerInput& in, std::size_t round,
                              const DispatchPlan& plan) const {
    return exchange_.finish_arrival(context, plan, round,
                                    exchange_.start_dispatch(context, plan, round, in.x));
}

/// Collective over mesh.experts().
void MoELayer::round_forward(StepContext& context, const LayerInput& in, std::size_t round,
                             Saved& saved) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    ExpertRows rows = dispatch(context, in, round, saved.plan);
    ExpertGroup::Saved experts;
    ExpertRows results = exchange_.result_rows(context);
    experts_.forward(context, rows.rows.slice_rows(0, received), chunk.rows_per_expert,
                     results.rows.slice_rows(0, received), experts);
    exchange_.combine(context, saved.plan, round, std::move(results), saved.routing.weight, saved.exchange);
    if (round == 0) {
        saved.rows = std::move(rows);
        saved.experts = std::move(experts);
    }
}

/// Collective over mesh.experts().
void MoELayer::round_backward(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved,
                              ExchangeBackward& backward) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    if (round > 0) {
        saved.rows = dispatch(context, in, round, saved.plan);
        experts_.recompute(context, saved.rows.rows.slice_rows(0, received), chunk.rows_per_expert,
                           saved.experts);
    }
    saved.experts.round = {static_cast<i64>(round), static_cast<i64>(saved.plan.chunks.size())};
    const ExpertRows d_out = exchange_.finish_arrival(
        context, saved.plan, round, exchange_.start_combine_backward(context, saved.plan, round, backward));
    ExpertRows d_rows = exchange_.result_rows(context);
    experts_.backward(context, saved.rows.rows.slice_rows(0, received), chunk.rows_per_expert,
                      chunk.rows_per_source, d_out.rows.slice_rows(0, received),
                      d_rows.rows.slice_rows(0, received), saved.experts);
    exchange_.dispatch_backward(context, saved.plan, round, std::move(d_rows), backward);
}

}  // namespace moesaic
