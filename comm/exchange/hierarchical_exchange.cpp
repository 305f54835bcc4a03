#include "comm/exchange/hierarchical_exchange.h"

#include "comm/exchange/node_planner.h"

namespace moesaic {

DispatchPlan HierarchicalExchange::plan(StepContext& context, const Routing& routing, int layer) {
    return make_node_plan(context, routing, sizes(), layer, {});
}

ArrivingRows HierarchicalExchange::start_dispatch(StepContext& context, const DispatchPlan& plan,
                                                  std::size_t round, ConstTensorView x) {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent();
    Tensor send = travel_buffer(context, {plan.most_slots, sizes().width}, x.dtype);
    const TensorView used = send.slice_rows(0, sent);
    context.backend.gather_rows(context.compute,
                                {.in = x, .index = chunk.token_of_send.slice_rows(0, sent), .out = used});
    return start_travel(context, plan, round, used, std::move(send), {kDispatchPhase, plan.layer});
}

ArrivingRows HierarchicalExchange::start_combine_backward(StepContext& context, const DispatchPlan& plan,
                                                          std::size_t round, ExchangeBackward& backward) {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent();
    const Label label{kCombineBackwardPhase, plan.layer};
    const ConstTensorView d_slots = backward.d_slots;
    ArrivingRows arriving;
    if (hops_.leaves_in_slot_order(plan)) {
        arriving = start_travel(context, plan, round, d_slots.slice_rows(0, sent), {}, label);
    } else {
        Tensor send = travel_buffer(context, {plan.most_slots, sizes().width}, d_slots.dtype);
        for_each_destination(chunk, hops_.destinations(), [&](i64 row, i64 slot, i64 count) {
            context.backend.copy(context.compute, d_slots.slice_rows(slot, count),
                                 send.slice_rows(row, count));
        });
        const ConstTensorView used = send.slice_rows(0, sent);
        arriving = start_travel(context, plan, round, used, std::move(send), label);
    }
    arriving.backward = &backward;
    return arriving;
}

ArrivingRows HierarchicalExchange::start_travel(StepContext& context, const DispatchPlan& plan,
                                                std::size_t round, ConstTensorView send,
                                                Tensor memory_of_send, Label label) const {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 most = hops_.sizes().proxied;
    ArrivingRows arriving;
    arriving.arrival = travel_buffer(context, {most, sizes().width}, send.dtype);
    arriving.transfer = hops_.start_across(context,
                                           {.send = send,
                                            .send_rows = nodes.slots_to_node,
                                            .most_sent = plan.most_slots,
                                            .recv = arriving.arrival.slice_rows(0, nodes.proxied()),
                                            .recv_rows = nodes.slots_from_node,
                                            .most_received = most},
                                           label);
    arriving.transfer.sent = std::move(memory_of_send);
    return arriving;
}

ArrivedRows HierarchicalExchange::finish_arrival(StepContext& context, const DispatchPlan& plan,
                                                 std::size_t round, ArrivingRows arriving) {
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 proxied = nodes.proxied();
    Wire::finish(context, arriving.transfer);
    Tensor leaving = travel_buffer(context, arriving.arrival.shape(), arriving.arrival.dtype());
    context.backend.gather_rows(context.compute, {.in = arriving.arrival.slice_rows(0, proxied),
                                                  .index = nodes.leaving_from_arrival.slice_rows(0, proxied),
                                                  .out = leaving.slice_rows(0, proxied)});
    arriving.arrival.reset();
    return hops_.to_experts(context, plan, round, leaving.slice_rows(0, proxied),
                            {arriving.backward ? kCombineBackwardPhase : kDispatchPhase, plan.layer});
}

/// At once: between its two hops rows are put in order.
std::optional<ReturningRows> HierarchicalExchange::start_return(StepContext& context,
                                                                const DispatchPlan& plan, std::size_t round,
                                                                ExpertRows rows, TensorView slots,
                                                                Label label) {
    hops_.to_slots(context, plan, round, rows.rows, slots, label);
    return {};
}

}  // namespace moesaic
