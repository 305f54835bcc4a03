#include "comm/exchange/node_hops.h"

#include <algorithm>

#include "comm/exchange/node_planner.h"
#include "comm/exchange/slot_exchange.h"

namespace moesaic {

NodeHops::NodeHops(const Mesh& mesh, const ExchangeSizes& sizes, Wire wire)
    : exchange_sizes_(sizes),
      node_sizes_(node_sizes(mesh, sizes)),
      wire_(wire),
      by_node_(mesh.grid().by_node()),
      ranks_lie_by_node_(std::ranges::is_sorted(by_node_)),
      // For one expert, rows of sources in the order of their ranks are grouped already.
      arrives_grouped_(mesh.local_places() == 1 && std::ranges::is_sorted(mesh.grid().by_local())) {}

Transfer NodeHops::start_across(StepContext& context, const TransferRows& rows, Label label) const {
    return wire_.start(context, context.mesh.across_nodes(), rows, label);
}

ArrivedRows NodeHops::to_experts(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                 ConstTensorView leaving, Label label) const {
    const DispatchChunk& chunk = plan.chunks[round];
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 received = chunk.received();
    const Shape shape{exchange_sizes_.capacity_rows, leaving.cols()};
    ArrivedRows arrived(context.backend.allocate(shape, leaving.dtype));
    wire_.exchange(context, context.mesh.node(),
                   {.send = leaving,
                    .send_rows = nodes.rows_to_local,
                    .most_sent = node_sizes_.proxied,
                    .recv = arrived.memory.slice_rows(0, received),
                    .recv_rows = nodes.rows_from_proxy,
                    .most_received = exchange_sizes_.capacity_rows},
                   label);
    if (!arrives_grouped_) arrived.index = chunk.grouped_from_arrival;
    return arrived;
}

void NodeHops::to_proxies(StepContext& context, const DispatchPlan& plan, std::size_t round,
                          ConstTensorView rows, TensorView leaving, Label label) const {
    const DispatchChunk& chunk = plan.chunks[round];
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 received = chunk.received();
    ConstTensorView sending = rows.slice_rows(0, received);
    Tensor arrival;
    if (!arrives_grouped_) {
        arrival = travel_buffer(context, {exchange_sizes_.capacity_rows, rows.cols()}, rows.dtype);
        context.backend.gather_rows(context.compute,
                                    {.in = sending,
                                     .index = chunk.arrival_from_grouped.slice_rows(0, received),
                                     .out = arrival.slice_rows(0, received)});
        sending = arrival.slice_rows(0, received);
    }
    wire_.exchange(context, context.mesh.node(),
                   {.send = sending,
                    .send_rows = nodes.rows_from_proxy,
                    .most_sent = exchange_sizes_.capacity_rows,
                    .recv = leaving,
                    .recv_rows = nodes.rows_to_local,
                    .most_received = node_sizes_.proxied},
                   label);
}

void NodeHops::to_slots(StepContext& context, const DispatchPlan& plan, std::size_t round,
                        ConstTensorView rows, TensorView slots, Label label) const {
    const DispatchChunk& chunk = plan.chunks[round];
    const NodeChunk& nodes = plan.nodes.chunks[round];
    const i64 proxied = nodes.proxied(), sent = chunk.sent(), width = rows.cols();
    Tensor leaving = travel_buffer(context, {node_sizes_.proxied, width}, rows.dtype);
    to_proxies(context, plan, round, rows, leaving.slice_rows(0, proxied), label);
    Tensor arrived = travel_buffer(context, {node_sizes_.proxied, width}, rows.dtype);
    context.backend.gather_rows(context.compute, {.in = leaving.slice_rows(0, proxied),
                                                  .index = nodes.arrival_from_leaving.slice_rows(0, proxied),
                                                  .out = arrived.slice_rows(0, proxied)});
    leaving.reset();
    Tensor back;
    const bool direct = leaves_in_slot_order(plan);
    if (!direct) back = travel_buffer(context, {plan.most_slots, width}, rows.dtype);
    const TensorView target = direct ? slots : back.view();
    wire_.exchange(context, context.mesh.across_nodes(),
                   {.send = arrived.slice_rows(0, proxied),
                    .send_rows = nodes.slots_from_node,
                    .most_sent = node_sizes_.proxied,
                    .recv = target.slice_rows(0, sent),
                    .recv_rows = nodes.slots_to_node,
                    .most_received = plan.most_slots},
                   label);
    if (direct) return;
    for_each_destination(chunk, by_node_, [&](i64 row, i64 slot, i64 count) {
        context.backend.copy(context.compute, back.slice_rows(row, count), slots.slice_rows(slot, count));
    });
}

}  // namespace moesaic
