#include "comm/exchange/flat_exchange.h"

namespace moesaic {

namespace {

/// Starts an all-to-all after all work so far on compute; the event says when it is done.
/// Collective over mesh.experts().
Event start_all_to_all(StepContext& context, ConstTensorView send, Counts send_rows, TensorView recv,
                       Counts recv_rows, Label label) {
    context.exchange.wait(context.compute.record());
    context.mesh.experts().all_to_all_rows(context.exchange, send, send_rows, recv, recv_rows, label);
    return context.exchange.record();
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

/// Rows in this round's order -> their slots.
void copy_to_slots(StepContext& context, const DispatchChunk& chunk, ConstTensorView rows, TensorView slots) {
    for_each_destination(chunk, [&](i64 row, i64 slot, i64 count) {
        context.backend.copy(context.compute, rows.slice_rows(row, count), slots.slice_rows(slot, count));
    });
}

bool alone(const StepContext& context) {
    return context.mesh.experts().size() == 1;
}

/// From one source, or for one expert, rows arrive in grouped order already.
bool arrives_grouped(const StepContext& context) {
    return alone(context) || context.mesh.local_experts() == 1;
}

}  // namespace

ArrivingRows FlatExchange::start_dispatch(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                          ConstTensorView x) {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent();
    const ConstTensorView tokens = chunk.token_of_send.slice_rows(0, sent);
    if (alone(context)) {  // sent order is grouped order
        ArrivingRows arriving;
        arriving.grouped = result_rows(context);
        context.backend.gather_rows(
            context.compute, {.in = x, .index = tokens, .out = arriving.grouped.rows.slice_rows(0, sent)});
        return arriving;
    }
    Tensor send = travel_buffer(context, {plan.tokens * plan.choices, sizes().width}, x.dtype);
    const TensorView used = send.slice_rows(0, sent);
    context.backend.gather_rows(context.compute, {.in = x, .index = tokens, .out = used});
    return start_travel(context, chunk, used, std::move(send), {"dispatch", plan.layer});
}

ArrivingRows FlatExchange::start_combine_backward(StepContext& context, const DispatchPlan& plan,
                                                  std::size_t round, ExchangeBackward& backward) {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent();
    const Label label{"combine backward", plan.layer};
    const ConstTensorView d_slots = backward.d_slots;
    if (!alone(context) && plan.chunks.size() == 1)  // all slots, in slot order
        return start_travel(context, chunk, d_slots.slice_rows(0, sent), {}, label);
    ArrivingRows arriving;
    Tensor send;
    if (alone(context)) {
        arriving.grouped = result_rows(context);
    } else {
        send = travel_buffer(context, {plan.tokens * plan.choices, sizes().width}, d_slots.dtype);
    }
    const TensorView target = alone(context) ? arriving.grouped.rows : send.view();
    for_each_destination(chunk, [&](i64 row, i64 slot, i64 count) {
        context.backend.copy(context.compute, d_slots.slice_rows(slot, count), target.slice_rows(row, count));
    });
    if (alone(context)) return arriving;
    const ConstTensorView used = send.slice_rows(0, sent);
    return start_travel(context, chunk, used, std::move(send), label);
}

ArrivingRows FlatExchange::start_travel(StepContext& context, const DispatchChunk& chunk,
                                        ConstTensorView send, Tensor memory_of_send, Label label) const {
    ArrivingRows arriving;
    const Shape shape{sizes().capacity_rows, sizes().width};
    arriving.grouped = ExpertRows(context.backend.allocate(shape, send.dtype));
    if (!arrives_grouped(context)) arriving.arrival = travel_buffer(context, shape, send.dtype);
    arriving.sent = std::move(memory_of_send);
    const TensorView target = arrives_grouped(context) ? arriving.grouped.rows : arriving.arrival.view();
    arriving.arrived = start_all_to_all(context, send, chunk.send_rows,
                                        target.slice_rows(0, chunk.received()), chunk.recv_rows, label);
    return arriving;
}

ExpertRows FlatExchange::finish_arrival(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                        ArrivingRows arriving) {
    if (alone(context)) return std::move(arriving.grouped);
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 received = chunk.received();
    context.compute.wait(arriving.arrived);
    if (!arrives_grouped(context)) {
        context.backend.gather_rows(context.compute,
                                    {.in = arriving.arrival.slice_rows(0, received),
                                     .index = chunk.grouped_from_arrival.slice_rows(0, received),
                                     .out = arriving.grouped.rows.slice_rows(0, received)});
    }
    return std::move(arriving.grouped);
}

void FlatExchange::start_return(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                ExpertRows rows, TensorView slots, ReturningRows& returning,
                                Label label) const {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent(), received = chunk.received();
    if (alone(context)) {  // sent order is grouped order
        copy_to_slots(context, chunk, rows.rows, slots);
        return;
    }
    ReturningRows next;
    next.round = round;
    ConstTensorView leaving = rows.rows.slice_rows(0, received);
    if (arrives_grouped(context)) {
        next.sent = std::move(rows.memory);
    } else {
        next.sent = travel_buffer(context, {sizes().capacity_rows, leaving.cols()}, leaving.dtype);
        const TensorView by_rank = next.sent.slice_rows(0, received);
        context.backend.gather_rows(
            context.compute,
            {.in = leaving, .index = chunk.arrival_from_grouped.slice_rows(0, received), .out = by_rank});
        leaving = by_rank;
    }
    const bool all_slots = plan.chunks.size() == 1;  // in slot order
    if (!all_slots)
        next.back = travel_buffer(context, {plan.tokens * plan.choices, leaving.cols()}, leaving.dtype);
    const TensorView back = all_slots ? slots : next.back.view();
    next.arrived =
        start_all_to_all(context, leaving, chunk.recv_rows, back.slice_rows(0, sent), chunk.send_rows, label);
    next.under_way = true;
    finish_return(context, plan, slots, returning);  // of the round before
    returning = std::move(next);
    if (!looks_ahead()) finish_return(context, plan, slots, returning);
}

void FlatExchange::finish_return(StepContext& context, const DispatchPlan& plan, TensorView slots,
                                 ReturningRows& returning) {
    if (!returning.under_way) return;
    context.compute.wait(returning.arrived);
    if (returning.back) copy_to_slots(context, plan.chunks[returning.round], returning.back, slots);
    returning = {};
}

void FlatExchange::combine(StepContext& context, const DispatchPlan& plan, std::size_t round,
                           ExpertRows results, ConstTensorView, ExchangeSaved& saved) {
    if (round == 0)
        saved.results = context.backend.allocate({plan.tokens * plan.choices, sizes().width}, sizes().dtype);
    start_return(context, plan, round, std::move(results), saved.results, saved.returning,
                 {"combine", plan.layer});
}

Tensor FlatExchange::finish_combine(StepContext& context, const DispatchPlan& plan, ConstTensorView weight,
                                    ExchangeSaved& saved) {
    finish_return(context, plan, saved.results, saved.returning);
    Tensor y = context.backend.allocate({plan.tokens, sizes().width}, sizes().dtype);
    context.backend.combine_rows(
        context.compute, {.rows = saved.results, .slot = plan.slot_of_choice, .weight = weight, .y = y});
    return y;
}

ExchangeBackward FlatExchange::begin_backward(StepContext& context, const DispatchPlan& plan,
                                              ConstTensorView dy, ConstTensorView weight,
                                              ExchangeSaved& saved) {
    ExchangeBackward backward;
    backward.dy = dy;
    backward.d_slots = context.backend.allocate(saved.results.shape(), sizes().dtype);
    backward.d_weight = context.backend.allocate(weight.shape, weight.dtype);
    context.backend.combine_rows_backward(context.compute, {.rows = saved.results,
                                                            .slot = plan.slot_of_choice,
                                                            .weight = weight,
                                                            .dy = dy,
                                                            .d_rows = backward.d_slots,
                                                            .d_weight = backward.d_weight});
    return backward;
}

void FlatExchange::dispatch_backward(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                     ExpertRows d_rows, ExchangeBackward& backward) {
    start_return(context, plan, round, std::move(d_rows), backward.d_slots, backward.returning,
                 {"dispatch backward", plan.layer});
}

ExchangeGradients FlatExchange::finish_backward(StepContext& context, const DispatchPlan& plan,
                                                ExchangeBackward backward) {
    finish_return(context, plan, backward.d_slots, backward.returning);
    ExchangeGradients gradients;
    gradients.dx = context.backend.allocate({plan.tokens, sizes().width}, sizes().dtype);
    gradients.d_weight = std::move(backward.d_weight);
    context.backend.combine_rows(
        context.compute,
        {.rows = backward.d_slots, .slot = plan.slot_of_choice, .weight = {}, .y = gradients.dx});
    return gradients;
}

}  // namespace moesaic
