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
    const i64 whole = capacity_of(spec, mesh), mean = spec.micro_tokens() * spec.top_k;
    ExchangeSizes sizes;
    sizes.tokens = spec.micro_tokens();
    sizes.choices = spec.top_k;
    sizes.width = spec.width;
    sizes.capacity_rows = spec.chunks == 1 ? whole : std::min(whole, (mean + spec.chunks - 1) / spec.chunks);
    sizes.rounds_kept = (whole + sizes.capacity_rows - 1) / sizes.capacity_rows;
    sizes.look_ahead = spec.chunks > 1;
    sizes.layers = spec.recompute ? 1 : spec.expert_layers();
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
    const std::size_t rounds = saved.plan.chunks.size();
    saved.rounds.resize(static_cast<std::size_t>(exchange_.sizes().rounds_kept));
    ArrivingRows arriving = exchange_.start_dispatch(context, saved.plan, 0, in.x);
    for (std::size_t round = 0; round < rounds; ++round) {
        const auto start_next = [&] {
            if (round + 1 < rounds) arriving = exchange_.start_dispatch(context, saved.plan, round + 1, in.x);
        };
        Round passing;
        Round& current = round < saved.rounds.size() ? saved.rounds[round] : passing;
        current.rows = exchange_.finish_arrival(context, saved.plan, round, std::move(arriving));
        if (exchange_.looks_ahead()) start_next();
        round_forward(context, round, current, saved);
        if (!exchange_.looks_ahead()) start_next();
    }
    keep_memory_of_unused_rounds(context, saved);
    return exchange_.finish_combine(context, saved.plan, saved.routing.weight, saved.exchange);
}

Tensor MoELayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                          Saved& saved) const {
    ExchangeBackward backward =
        exchange_.begin_backward(context, saved.plan, dy, saved.routing.weight, saved.exchange);
    // Ascending rounds: the experts' gradients add rows in the order of one round.
    const std::size_t rounds = saved.plan.chunks.size();
    ArrivingRows arriving = exchange_.start_combine_backward(context, saved.plan, 0, backward);
    for (std::size_t round = 0; round < rounds; ++round) {
        const auto start_next = [&] {
            if (round + 1 < rounds)
                arriving = exchange_.start_combine_backward(context, saved.plan, round + 1, backward);
        };
        if (round >= saved.rounds.size()) receive_again(context, in, round, saved);
        const ExpertRows d_out = exchange_.finish_arrival(context, saved.plan, round, std::move(arriving));
        if (exchange_.looks_ahead()) start_next();
        round_backward(context, round, d_out, saved, backward);
        if (!exchange_.looks_ahead()) start_next();
    }
    ExchangeGradients gradients = exchange_.finish_backward(context, saved.plan, std::move(backward));
    router_->backward(context, in, saved.routing, gradients.d_weight, saved.balance, saved.router,
                      gradients.dx);
    return std::move(gradients.dx);
}

/// Collective over mesh.experts(). Takes the rows that `current` holds through the experts and back.
void MoELayer::round_forward(StepContext& context, std::size_t round, Round& current, Saved& saved) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    ExpertRows results = exchange_.result_rows(context);
    experts_.forward(context, current.rows.rows.slice_rows(0, received), chunk.rows_per_expert,
                     results.rows.slice_rows(0, received), current.experts);
    exchange_.combine(context, saved.plan, round, std::move(results), saved.routing.weight, saved.exchange);
}

/// How many rounds there are depends on the routing, and memory does not.
void MoELayer::keep_memory_of_unused_rounds(StepContext& context, Saved& saved) const {
    for (std::size_t round = saved.plan.chunks.size(); round < saved.rounds.size(); ++round) {
        Round& unused = saved.rounds[round];
        const DType dtype = exchange_.sizes().dtype;
        if (saved.rounds[0].rows.memory)
            unused.rows = ExpertRows(context.backend.allocate(saved.rounds[0].rows.rows.shape, dtype));
        experts_.allocate(context, dtype, unused.experts);
    }
}

/// Collective over mesh.experts(). A round that was not kept takes the place of the last that was.
void MoELayer::receive_again(StepContext& context, const LayerInput& in, std::size_t round,
                             Saved& saved) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    Round& current = saved.rounds.back();
    current.rows = exchange_.finish_arrival(context, saved.plan, round,
                                            exchange_.start_dispatch(context, saved.plan, round, in.x));
    experts_.recompute(context, current.rows.rows.slice_rows(0, chunk.received()), chunk.rows_per_expert,
                       current.experts);
}

/// Collective over mesh.experts().
void MoELayer::round_backward(StepContext& context, std::size_t round, const ExpertRows& d_out, Saved& saved,
                              ExchangeBackward& backward) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    Round& current = saved.rounds[std::min(round, saved.rounds.size() - 1)];
    current.experts.round = {static_cast<i64>(round), static_cast<i64>(saved.plan.chunks.size())};
    current.experts.open_source = std::move(saved.open_source);
    ExpertRows d_rows = exchange_.result_rows(context);
    experts_.backward(context, current.rows.rows.slice_rows(0, received), chunk.rows_per_expert,
                      chunk.rows_per_source, d_out.rows.slice_rows(0, received),
                      d_rows.rows.slice_rows(0, received), current.experts);
    saved.open_source = std::move(current.experts.open_source);
    exchange_.dispatch_backward(context, saved.plan, round, std::move(d_rows), backward);
}

}  // namespace moesaic
