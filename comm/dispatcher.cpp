#include "comm/dispatcher.h"

namespace moesaic {

namespace {

/// Memory for rows on their way.
Tensor buffer(StepContext& context, Shape shape, DType dtype) {
    const MemoryUseScope use(context.backend.pool(), MemoryUse::exchange);
    return context.backend.allocate(shape, dtype);
}

/// One exchange between two pieces of work on compute: afterwards compute may read `recv` and reuse `send`.
/// Collective over mesh.experts().
void exchange_rows(StepContext& context, ConstTensorView send, Counts send_rows, TensorView recv,
                   Counts recv_rows, Label label) {
    context.exchange.wait(context.compute.record());
    context.mesh.experts().all_to_all_rows(context.exchange, send, send_rows, recv, recv_rows, label);
    context.compute.wait(context.exchange.record());
}

/// Calls visit(first row in this round's order, first slot, rows) for every destination.
template <class Visit>
void for_each_destination(const DispatchChunk& chunk, Visit visit) {
    i64 row = 0;
    for (std::size_t peer = 0; peer < chunk.send_rows.size(); ++peer) {
        if (chunk.send_rows[peer] > 0) visit(row, chunk.first_slot[peer], chunk.send_rows[peer]);
        row += chunk.send_rows[peer];
    }
}

bool alone(const StepContext& context) {
    return context.mesh.experts().size() == 1;
}

/// From one source, or for one expert, rows arrive in grouped order already.
bool arrives_grouped(const StepContext& context) {
    return alone(context) || context.mesh.local_experts() == 1;
}

/// Rows as sent [sent,H] -> grouped by local expert in `out` [C,H]. Collective over mesh.experts().
void forward_rows(StepContext& context, const DispatchChunk& chunk, ConstTensorView send, TensorView out,
                  Label label) {
    const i64 received = chunk.received();
    const TensorView grouped = out.slice_rows(0, received);
    if (arrives_grouped(context)) {
        exchange_rows(context, send, chunk.send_rows, grouped, chunk.recv_rows, label);
        return;
    }
    Tensor arrival = buffer(context, out.shape, out.dtype);
    exchange_rows(context, send, chunk.send_rows, arrival.slice_rows(0, received), chunk.recv_rows, label);
    context.backend.gather_rows(context.compute, {.in = arrival.slice_rows(0, received),
                                                  .index = chunk.grouped_from_arrival.slice_rows(0, received),
                                                  .out = grouped});
}

/// Rows by expert [R,H] -> as they were sent, in `back` [sent,H]. Collective over mesh.experts().
void reverse_rows(StepContext& context, const DispatchChunk& chunk, i64 capacity_rows, ConstTensorView rows,
                  TensorView back, Label label) {
    const i64 received = chunk.received();
    const ConstTensorView grouped = rows.slice_rows(0, received);
    if (arrives_grouped(context)) {
        exchange_rows(context, grouped, chunk.recv_rows, back, chunk.send_rows, label);
        return;
    }
    Tensor arrival = buffer(context, {capacity_rows, rows.cols()}, rows.dtype);
    context.backend.gather_rows(context.compute, {.in = grouped,
                                                  .index = chunk.arrival_from_grouped.slice_rows(0, received),
                                                  .out = arrival.slice_rows(0, received)});
    exchange_rows(context, arrival.slice_rows(0, received), chunk.recv_rows, back, chunk.send_rows, label);
}

/// Rows by expert [R,H] -> this round's rows of `slots` [S,H]. Collective over mesh.experts().
void rows_to_slots(StepContext& context, const DispatchPlan& plan, const DispatchChunk& chunk,
                   i64 capacity_rows, ConstTensorView rows, TensorView slots, Label label) {
    Backend& backend = context.backend;
    const i64 sent = chunk.sent();
    if (alone(context)) {  // sent order is grouped order
        for_each_destination(chunk, [&](i64 row, i64 slot, i64 count) {
            backend.copy(context.compute, rows.slice_rows(row, count), slots.slice_rows(slot, count));
        });
    } else if (plan.chunks.size() == 1) {  // this round's rows are all slots, in slot order
        reverse_rows(context, chunk, capacity_rows, rows, slots.slice_rows(0, sent), label);
    } else {
        Tensor back = buffer(context, {plan.tokens * plan.choices, rows.cols()}, rows.dtype);
        reverse_rows(context, chunk, capacity_rows, rows, back.slice_rows(0, sent), label);
        for_each_destination(chunk, [&](i64 row, i64 slot, i64 count) {
            backend.copy(context.compute, back.slice_rows(row, count), slots.slice_rows(slot, count));
        });
    }
}

}  // namespace

Tensor Dispatcher::dispatch(StepContext& context, const DispatchPlan& plan, std::size_t chunk,
                            ConstTensorView x) const {
    const DispatchChunk& round = plan.chunks[chunk];
    const i64 sent = round.sent();
    Tensor out = context.backend.allocate({capacity_rows_, width_}, x.dtype);
    const ConstTensorView tokens = round.token_of_send.slice_rows(0, sent);
    if (alone(context)) {
        context.backend.gather_rows(context.compute,
                                    {.in = x, .index = tokens, .out = out.slice_rows(0, sent)});
        return out;
    }
    Tensor send = buffer(context, {plan.tokens * plan.choices, width_}, x.dtype);
    context.backend.gather_rows(context.compute, {.in = x, .index = tokens, .out = send.slice_rows(0, sent)});
    forward_rows(context, round, send.slice_rows(0, sent), out, {"dispatch", layer_});
    return out;
}

void Dispatcher::dispatch_backward(StepContext& context, const DispatchPlan& plan, std::size_t chunk,
                                   ConstTensorView d_rows, TensorView d_slots) const {
    rows_to_slots(context, plan, plan.chunks[chunk], capacity_rows_, d_rows, d_slots,
                  {"dispatch backward", layer_});
}

void Dispatcher::combine(StepContext& context, const DispatchPlan& plan, std::size_t chunk,
                         ConstTensorView rows, TensorView slots) const {
    rows_to_slots(context, plan, plan.chunks[chunk], capacity_rows_, rows, slots, {"combine", layer_});
}

Tensor Dispatcher::combine_backward(StepContext& context, const DispatchPlan& plan, std::size_t chunk,
                                    ConstTensorView d_slots) const {
    Backend& backend = context.backend;
    const DispatchChunk& round = plan.chunks[chunk];
    const i64 sent = round.sent();
    const Label label{"combine backward", layer_};
    Tensor out = backend.allocate({capacity_rows_, width_}, d_slots.dtype);
    if (!alone(context) && plan.chunks.size() == 1) {  // all slots, in slot order
        forward_rows(context, round, d_slots.slice_rows(0, sent), out, label);
        return out;
    }
    Tensor send;
    if (!alone(context)) send = buffer(context, {plan.tokens * plan.choices, width_}, d_slots.dtype);
    TensorView target = alone(context) ? out.view() : send.view();
    for_each_destination(round, [&](i64 row, i64 slot, i64 count) {
        backend.copy(context.compute, d_slots.slice_rows(slot, count), target.slice_rows(row, count));
    });
    if (!alone(context)) forward_rows(context, round, send.slice_rows(0, sent), out, label);
    return out;
}

}  // namespace moesaic
