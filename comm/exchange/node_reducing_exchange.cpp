#include "comm/exchange/dedup_exchange.h"
#include "comm/exchange/node_planner.h"

namespace moesaic {

DispatchPlan NodeReducingExchange::plan(StepContext& context, const Routing& routing, int layer) {
    return make_node_plan(context, routing, sizes(), layer, {.tokens = true, .sums = true});
}

ArrivingRows NodeReducingExchange::start_dispatch(StepContext& context, const DispatchPlan& plan,
                                                  std::size_t round, ConstTensorView x) {
    return tokens_.start(context, plan, round, x, {kDispatchPhase, plan.layer});
}

ArrivingRows NodeReducingExchange::start_combine_backward(StepContext& context, const DispatchPlan& plan,
                                                          std::size_t round, ExchangeBackward& backward) {
    ArrivingRows arriving =
        tokens_.start(context, plan, round, backward.dy, {kCombineBackwardPhase, plan.layer});
    arriving.backward = &backward;
    return arriving;
}

ArrivedRows NodeReducingExchange::finish_arrival(StepContext& context, const DispatchPlan& plan,
                                                 std::size_t round, ArrivingRows arriving) {
    if (!arriving.backward) return tokens_.finish_dispatch(context, plan, round, std::move(arriving));
    ExchangeBackward& backward = *arriving.backward;
    const NodeChunk& nodes = plan.nodes.chunks[round];
    Wire::finish(context, arriving.transfer);
    Tensor d_weight = context.backend.allocate(nodes.weight_of_token.shape(), nodes.weight_of_token.dtype());
    const ConstTensorView results =
        backward.results.slice_rows(plan.nodes.first_proxied[round], nodes.proxied());
    const Tensor leaving = tokens_.weighted(context, plan, round, arriving.arrival, results,
                                            d_weight.slice_rows(0, nodes.tokens_arrived()));
    arriving.arrival.reset();
    bring_weight_gradients(context, plan, round, d_weight, backward.d_weight);
    return tokens_.hops().to_experts(context, plan, round, leaving.slice_rows(0, nodes.proxied()),
                                     {kCombineBackwardPhase, plan.layer});
}

void NodeReducingExchange::combine(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                   ExpertRows results, ConstTensorView, ExchangeSaved& saved) {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const Label label{kCombinePhase, plan.layer};
    if (round == 0) {
        const i64 most = tokens_.hops().sizes().proxied_in_all;
        saved.results = context.backend.allocate({most, sizes().width}, sizes().dtype);
        saved.y = context.backend.allocate({plan.tokens, sizes().width}, sizes().dtype);
    }
    const TensorView kept = saved.results.slice_rows(plan.nodes.first_proxied[round], nodes.proxied());
    tokens_.hops().to_proxies(context, plan, round, results.rows, kept, label);
    add_to_tokens(context, plan, round, kept, true, saved.y, label);
}

Tensor NodeReducingExchange::finish_combine(StepContext&, const DispatchPlan&, ConstTensorView,
                                            ExchangeSaved& saved) {
    return std::move(saved.y);
}

ExchangeBackward NodeReducingExchange::begin_backward(StepContext& context, const DispatchPlan& plan,
                                                      ConstTensorView dy, ConstTensorView weight,
                                                      ExchangeSaved& saved) {
    ExchangeBackward backward;
    backward.dy = dy;
    backward.weight = weight;
    backward.results = saved.results;
    backward.dx = context.backend.allocate({plan.tokens, sizes().width}, sizes().dtype);
    backward.d_weight = context.backend.allocate(weight.shape, weight.dtype);
    return backward;
}

void NodeReducingExchange::dispatch_backward(StepContext& context, const DispatchPlan& plan,
                                             std::size_t round, ExpertRows d_rows,
                                             ExchangeBackward& backward) {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const Label label{kDispatchBackwardPhase, plan.layer};
    const NodeSizes& most = tokens_.hops().sizes();
    Tensor leaving = travel_buffer(context, {most.proxied, sizes().width}, sizes().dtype);
    const TensorView used = leaving.slice_rows(0, nodes.proxied());
    tokens_.hops().to_proxies(context, plan, round, d_rows.rows, used, label);
    add_to_tokens(context, plan, round, used, false, backward.dx, label);
}

ExchangeGradients NodeReducingExchange::finish_backward(StepContext&, const DispatchPlan&,
                                                        ExchangeBackward backward) {
    return {std::move(backward.dx), std::move(backward.d_weight)};
}

void NodeReducingExchange::add_to_tokens(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                         ConstTensorView leaving, bool weighted, TensorView sum,
                                         Label label) const {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 arrived = nodes.tokens_arrived(), departures = nodes.departures();
    const i64 most_arrived = tokens_.hops().sizes().tokens_arrived;
    const i64 most_departures = nodes.token_of_departure.elements();
    Tensor partial = travel_buffer(context, {most_arrived, leaving.cols()}, leaving.dtype);
    ConstTensorView weight;
    if (weighted) weight = nodes.weight_of_token.slice_rows(0, arrived);
    context.backend.combine_rows(context.compute, {.rows = leaving,
                                                   .slot = nodes.leaving_of_token.slice_rows(0, arrived),
                                                   .weight = weight,
                                                   .y = partial.slice_rows(0, arrived)});
    Tensor back = travel_buffer(context, {most_departures, leaving.cols()}, leaving.dtype);
    tokens_.hops().wire().exchange(context, context.mesh.across_nodes(),
                                   {.send = partial.slice_rows(0, arrived),
                                    .send_rows = nodes.tokens_from_node,
                                    .most_sent = most_arrived,
                                    .recv = back.slice_rows(0, departures),
                                    .recv_rows = nodes.tokens_to_node,
                                    .most_received = most_departures},
                                   label);
    context.backend.combine_rows(
        context.compute,
        {.rows = back, .slot = nodes.departure_of_token, .weight = {}, .y = sum, .accumulate = round > 0});
}

void NodeReducingExchange::bring_weight_gradients(StepContext& context, const DispatchPlan& plan,
                                                  std::size_t round, ConstTensorView at_proxy,
                                                  TensorView d_weight) const {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 departures = nodes.departures(), most_departures = nodes.token_of_departure.elements();
    Tensor back = context.backend.allocate({most_departures, at_proxy.cols()}, at_proxy.dtype);
    Wire().exchange(context, context.mesh.across_nodes(),
                    {.send = at_proxy.slice_rows(0, nodes.tokens_arrived()),
                     .send_rows = nodes.tokens_from_node,
                     .most_sent = at_proxy.rows(),
                     .recv = back.slice_rows(0, departures),
                     .recv_rows = nodes.tokens_to_node,
                     .most_received = most_departures},
                    {kCombineBackwardPhase, plan.layer});
    const i64 choices = d_weight.elements();
    context.backend.gather_rows(context.compute, {.in = back.view().reshaped({back.elements(), 1}),
                                                  .index = nodes.weight_place,
                                                  .out = d_weight.reshaped({choices, 1}),
                                                  .accumulate = round > 0});
}

}  // namespace moesaic
