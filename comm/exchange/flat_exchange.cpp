#include "comm/exchange/flat_exchange.h"

namespace moesaic {

namespace {

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
    return start_travel(context, plan, round, used, std::move(send), {kDispatchPhase, plan.layer});
}

ArrivingRows FlatExchange::start_combine_backward(StepContext& context, const DispatchPlan& plan,
                                                  std::size_t round, ExchangeBackward& backward) {
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 sent = chunk.sent();
    const Label label{kCombineBackwardPhase, plan.layer};
    const ConstTensorView d_slots = backward.d_slots;
    if (!alone(context) && plan.chunks.size() == 1)  // all slots, in slot order
        return start_travel(context, plan, round, d_slots.slice_rows(0, sent), {}, label);
    ArrivingRows arriving;
    Tensor send;
    if (alone(context)) {
        arriving.grouped = result_rows(context);
    } else {
        send = travel_buffer(context, {plan.tokens * plan.choices, sizes().width}, d_slots.dtype);
    }
    const TensorView target = alone(context) ? arriving.grouped.rows : send.view();
    for_each_destination(chunk, {}, [&](i64 row, i64 slot, i64 count) {
        context.backend.copy(context.compute, d_slots.slice_rows(slot, count), target.slice_rows(row, count));
    });
    if (alone(context)) return arriving;
    const ConstTensorView used = send.slice_rows(0, sent);
    return start_travel(context, plan, round, used, std::move(send), label);
}

ArrivingRows FlatExchange::start_travel(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                        ConstTensorView send, Tensor memory_of_send, Label label) const {
    const DispatchChunk& chunk = plan.chunks[round];
    ArrivingRows arriving;
    const Shape shape{sizes().capacity_rows, sizes().width};
    arriving.grouped = ExpertRows(context.backend.allocate(shape, send.dtype));
    if (!arrives_grouped(context)) arriving.arrival = travel_buffer(context, shape, send.dtype);
    const TensorView target = arrives_grouped(context) ? arriving.grouped.rows : arriving.arrival.view();
    arriving.transfer = wire().start(context, context.mesh.experts(),
                                     {.send = send,
                                      .send_rows = chunk.send_rows,
                                      .most_sent = plan.tokens * plan.choices,
                                      .recv = target.slice_rows(0, chunk.received()),
                                      .recv_rows = chunk.recv_rows,
                                      .most_received = sizes().capacity_rows},
                                     label);
    arriving.transfer.sent = std::move(memory_of_send);
    return arriving;
}

ExpertRows FlatExchange::finish_arrival(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                        ArrivingRows arriving) {
    if (alone(context)) return std::move(arriving.grouped);
    const DispatchChunk& chunk = plan.chunks[round];
    const i64 received = chunk.received();
    Wire::finish(context, arriving.transfer);
    if (!arrives_grouped(context)) {
        context.backend.gather_rows(context.compute,
                                    {.in = arriving.arrival.slice_rows(0, received),
                                     .index = chunk.grouped_from_arrival.slice_rows(0, received),
                                     .out = arriving.grouped.rows.slice_rows(0, received)});
    }
    return std::move(arriving.grouped);
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
                     .most_received = plan.tokens * plan.choices},
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
        Tensor back = travel_buffer(context, {plan.tokens * plan.choices, rows.cols()}, rows.dtype);
        reverse_rows(context, plan, round, rows, back.slice_rows(0, sent), label);
        copy_to_slots(back);
    }
}

}  // namespace moesaic
