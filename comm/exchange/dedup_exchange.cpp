#include "comm/exchange/dedup_exchange.h"

#include <algorithm>

#include "comm/exchange/node_planner.h"

namespace moesaic {

ArrivingRows TokenHops::start(StepContext& context, const DispatchPlan& plan, std::size_t round,
                              ConstTensorView tokens, Label label) const {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 leaving = nodes.departures(), most = nodes.token_of_departure.elements();
    const i64 width = tokens.cols(), most_arrived = hops_.sizes().tokens_arrived;
    ArrivingRows arriving;
    Tensor send = travel_buffer(context, {most, width}, tokens.dtype);
    context.backend.gather_rows(context.compute, {.in = tokens,
                                                  .index = nodes.token_of_departure.slice_rows(0, leaving),
                                                  .out = send.slice_rows(0, leaving)});
    arriving.arrival = travel_buffer(context, {most_arrived, width}, tokens.dtype);
    arriving.transfer = hops_.start_across(context,
                                           {.send = send.slice_rows(0, leaving),
                                            .send_rows = nodes.tokens_to_node,
                                            .most_sent = most,
                                            .recv = arriving.arrival.slice_rows(0, nodes.tokens_arrived()),
                                            .recv_rows = nodes.tokens_from_node,
                                            .most_received = most_arrived},
                                           label);
    arriving.transfer.sent = std::move(send);
    return arriving;
}

ArrivedRows TokenHops::finish_dispatch(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                       ArrivingRows arriving) const {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 proxied = nodes.proxied();
    Wire::finish(context, arriving.transfer);
    const Tensor& arrived = arriving.arrival;
    Tensor leaving = travel_buffer(context, {hops_.sizes().proxied, arrived.cols()}, arrived.dtype());
    context.backend.gather_rows(context.compute, {.in = arrived.slice_rows(0, nodes.tokens_arrived()),
                                                  .index = nodes.token_of_leaving.slice_rows(0, proxied),
                                                  .out = leaving.slice_rows(0, proxied)});
    arriving.arrival.reset();
    return hops_.to_experts(context, plan, round, leaving.slice_rows(0, proxied),
                            {kDispatchPhase, plan.layer});
}

Tensor TokenHops::weighted(StepContext& context, const DispatchPlan& plan, std::size_t round,
                           ConstTensorView arrived, ConstTensorView results, TensorView d_weight) const {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 tokens = nodes.tokens_arrived();
    Tensor leaving = travel_buffer(context, {hops_.sizes().proxied, arrived.cols()}, arrived.dtype);
    context.backend.combine_rows_backward(context.compute,
                                          {.rows = results,
                                           .slot = nodes.leaving_of_token.slice_rows(0, tokens),
                                           .weight = nodes.weight_of_token.slice_rows(0, tokens),
                                           .dy = arrived.slice_rows(0, tokens),
                                           .d_rows = leaving.slice_rows(0, nodes.proxied()),
                                           .d_weight = d_weight});
    return leaving;
}

DispatchPlan DedupExchange::plan(StepContext& context, const Routing& routing, int layer) {
    return make_node_plan(context, routing, sizes(), layer, {.tokens = true});
}

ArrivingRows DedupExchange::start_dispatch(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                           ConstTensorView x) {
    return tokens_.start(context, plan, round, x, {kDispatchPhase, plan.layer});
}

ArrivingRows DedupExchange::start_combine_backward(StepContext& context, const DispatchPlan& plan,
                                                   std::size_t round, ExchangeBackward& backward) {
    ArrivingRows arriving =
        tokens_.start(context, plan, round, backward.dy, {kCombineBackwardPhase, plan.layer});
    arriving.backward = &backward;
    return arriving;
}

ArrivedRows DedupExchange::finish_arrival(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                          ArrivingRows arriving) {
    if (!arriving.backward) return tokens_.finish_dispatch(context, plan, round, std::move(arriving));
    Wire::finish(context, arriving.transfer);
    const Tensor leaving = tokens_.weighted(context, plan, round, arriving.arrival, {}, {});
    arriving.arrival.reset();
    return tokens_.hops().to_experts(context, plan, round,
                                     leaving.slice_rows(0, plan.nodes.chunks[round].proxied()),
                                     {kCombineBackwardPhase, plan.layer});
}

/// At once, as hierarchical does.
std::optional<ReturningRows> DedupExchange::start_return(StepContext& context, const DispatchPlan& plan,
                                                         std::size_t round, ExpertRows rows, TensorView slots,
                                                         Label label) {
    tokens_.hops().to_slots(context, plan, round, rows.rows, slots, label);
    return {};
}

}  // namespace moesaic
