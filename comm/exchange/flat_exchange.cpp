#include "comm/exchange/flat_exchange.h"

namespace moesaic {

namespace {

bool alone(const StepContext& context) {
    return context.mesh.experts().size() == 1;
}

/// From one source, or for one expert, rows arrive in grouped order already.
bool arrives_grouped(const StepContext& context) {
    return alone(context) || context.mesh.local_places() == 1;
}

void copy_to_slots(StepContext& context, const DispatchChunk& chunk, ConstTensorView from, TensorView slots) {
    for_each_destination(chunk, {}, [&](i64 row, i64 slot, i64 count) {
        context.backend.copy(context.compute, from.slice_rows(row, count), slots.slice_rows(slot, count));
    });
}

}  // namespace

ArrivingRows FlatExchange::start_dispatch(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                          ConstTensorView x) {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent();
    const ConstTensorView tokens = chunk.token_of_send.slice_rows(0, sent);
    if (alone(context)) {  // sent order is grouped order, and experts can read tokens where they are
        ArrivingRows arriving;
        arriving.arrived.rows = x;
        arriving.arrived.index = tokens;
        return arriving;
    }
    Tensor send = travel_buffer(context, {plan.most_slots, sizes().width}, x.dtype);
    const TensorView used = send.slice_rows(0, sent);
    context.backend.gather_rows(context.compute, {.in = x, .index = tokens, .out = used});
    return start_travel(context, plan, round, used, std::move(send), {kDispatchPhase, plan.layer});
}

ArrivingRows FlatExchange::start_combine_backward(StepContext& context, const DispatchPlan& plan,
                                                  std::size_t round, ExchangeBackward& backward) {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent();
    const Label label{kCombineBackwardPhase, plan.layer};
    const ConstTensorView d_slots = backward.d_slots;
    if (alone(context)) {  // slots of a round are its rows in grouped order
        ArrivingRows arriving;
        arriving.arrived.rows = d_slots.slice_rows(chunk.first_slot[0], sent);
        return arriving;
    }
    if (plan.chunks.size() == 1)  // all slots, in slot order
        return start_travel(context, plan, round, d_slots.slice_rows(0, sent), {}, label);
    Tensor send = travel_buffer(context, {plan.most_slots, sizes().width}, d_slots.dtype);
    for_each_destination(chunk, {}, [&](i64 row, i64 slot, i64 count) {
        context.backend.copy(context.compute, d_slots.slice_rows(slot, count), send.slice_rows(row, count));
    });
    const ConstTensorView used = send.slice_rows(0, sent);
    return start_travel(context, plan, round, used, std::move(send), label);
}

ArrivingRows FlatExchange::start_travel(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                        ConstTensorView send, Tensor memory_of_send, Label label) const {
    const DispatchChunk& chunk = plan.chunks[round];
    ArrivingRows arriving;
    const Shape shape{sizes().capacity_rows, sizes().width};
    arriving.arrived = ArrivedRows(context.backend.allocate(shape, send.dtype));
    arriving.transfer = wire().start(context, context.mesh.experts(),
                                     {.send = send,
                                      .send_rows = chunk.send_rows,
                                      .most_sent = plan.most_slots,
                                      .recv = arriving.arrived.memory.slice_rows(0, chunk.received()),
                                      .recv_rows = chunk.recv_rows,
                                      .most_received = sizes().capacity_rows},
                                     label);
    arriving.transfer.sent = std::move(memory_of_send);
    return arriving;
}

ArrivedRows FlatExchange::finish_arrival(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                         ArrivingRows arriving) {
    if (alone(context)) return std::move(arriving.arrived);
    Wire::finish(context, arriving.transfer);
    if (!arrives_grouped(context)) arriving.arrived.index = plan.chunks[round].grouped_from_arrival;
    return std::move(arriving.arrived);
}

Transfer FlatExchange::start_reverse(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                     ExpertRows rows, TensorView back, Label label) const {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 received = chunk.received();
    ConstTensorView leaving = rows.rows.slice_rows(0, received);
    Tensor memory = std::move(rows.memory);
    if (!arrives_grouped(context)) {
        Tensor ordered = travel_buffer(context, {sizes().capacity_rows, rows.rows.cols()}, rows.rows.dtype);
        context.backend.gather_rows(context.compute,
                                    {.in = leaving,
                                     .index = chunk.arrival_from_grouped.slice_rows(0, received),
                                     .out = ordered.slice_rows(0, received)});
        leaving = ordered.slice_rows(0, received);
        memory = std::move(ordered);
    }
    Transfer transfer = wire().start(context, context.mesh.experts(),
                                     {.send = leaving,
                                      .send_rows = chunk.recv_rows,
                                      .most_sent = sizes().capacity_rows,
                                      .recv = back,
                                      .recv_rows = chunk.send_rows,
                                      .most_received = plan.most_slots},
                                     label);
    transfer.sent = std::move(memory);
    return transfer;
}

std::optional<ReturningRows> FlatExchange::start_return(StepContext& context, const DispatchPlan& plan,
                                                        std::size_t round, ExpertRows rows, TensorView slots,
                                                        Label label) {
    const i64 sent = plan.chunks[round].sent();
    if (alone(context)) {  // sent order is grouped order
        copy_to_slots(context, plan.chunks[round], rows.rows, slots);
        return {};
    }
    ReturningRows returning;
    returning.round = round;
    TensorView back = slots.slice_rows(0, sent);  // of a single round: its rows are all slots, in slot order
    if (plan.chunks.size() > 1) {
        returning.back = travel_buffer(context, {plan.most_slots, rows.rows.cols()}, rows.rows.dtype);
        back = returning.back.slice_rows(0, sent);
    }
    returning.transfer = start_reverse(context, plan, round, std::move(rows), back, label);
    return returning;
}

void FlatExchange::finish_return(StepContext& context, const DispatchPlan& plan, ReturningRows& returning,
                                 TensorView slots) {
    Wire::finish(context, returning.transfer);
    if (returning.back) copy_to_slots(context, plan.chunks[returning.round], returning.back, slots);
}

}  // namespace moesaic
