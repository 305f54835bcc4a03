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

void FlatExchange::reverse_rows(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                ConstTensorView rows, TensorView back, Label label) const {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 received = chunk.received();
    ConstTensorView leaving = rows.slice_rows(0, received);
    Tensor memory;
    if (!arrives_grouped(context)) {
        memory = travel_buffer(context, {sizes().capacity_rows, rows.cols()}, rows.dtype);
        context.backend.gather_rows(context.compute,
                                    {.in = leaving,
                                     .index = chunk.arrival_from_grouped.slice_rows(0, received),
                                     .out = memory.slice_rows(0, received)});
        leaving = memory.slice_rows(0, received);
    }
    wire().exchange(context, context.mesh.experts(),
                    {.send = leaving,
                     .send_rows = chunk.recv_rows,
                     .most_sent = sizes().capacity_rows,
                     .recv = back,
                     .recv_rows = chunk.send_rows,
                     .most_received = plan.most_slots},
                    label);
}

void FlatExchange::rows_to_slots(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                 ConstTensorView rows, TensorView slots, Label label) {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent();
    const auto copy_to_slots = [&](ConstTensorView from) {
        for_each_destination(chunk, {}, [&](i64 row, i64 slot, i64 count) {
            context.backend.copy(context.compute, from.slice_rows(row, count), slots.slice_rows(slot, count));
        });
    };
    if (alone(context)) {  // sent order is grouped order
        copy_to_slots(rows);
    } else if (plan.chunks.size() == 1) {  // this round's rows are all slots, in slot order
        reverse_rows(context, plan, round, rows, slots.slice_rows(0, sent), label);
    } else {
        Tensor back = travel_buffer(context, {plan.most_slots, rows.cols()}, rows.dtype);
        reverse_rows(context, plan, round, rows, back.slice_rows(0, sent), label);
        copy_to_slots(back);
    }
}

}  // namespace moesaic
