#include "comm/exchange/wire.h"

namespace moesaic {

Tensor travel_buffer(StepContext& context, Shape shape, DType dtype) {
    const MemoryUseScope use(context.backend.pool(), MemoryUse::exchange);
    return context.backend.allocate(shape, dtype);
}

Transfer Wire::start(StepContext& context, Communicator& group, const TransferRows& rows, Label label) const {
    Transfer transfer;
    transfer.recv = rows.recv;
    transfer.received = rows.recv.rows();
    ConstTensorView send = rows.send;
    TensorView recv = rows.recv;
    if (type_ && *type_ != rows.recv.dtype) {
        const i64 width = rows.recv.cols();
        transfer.narrow_sent = travel_buffer(context, {rows.most_sent, width}, *type_);
        transfer.narrow_recv = travel_buffer(context, {rows.most_received, width}, *type_);
        const TensorView narrow = transfer.narrow_sent.slice_rows(0, send.rows());
        context.backend.convert(context.compute, send, narrow);
        send = narrow;
        recv = transfer.narrow_recv.slice_rows(0, recv.rows());
    }
    context.exchange.wait(context.compute.record());
    group.all_to_all_rows(context.exchange, send, rows.send_rows, recv, rows.recv_rows, label);
    transfer.arrived = context.exchange.record();
    return transfer;
}

void Wire::finish(StepContext& context, Transfer& transfer) {
    context.compute.wait(transfer.arrived);
    if (transfer.narrow_recv.elements() > 0)
        context.backend.convert(context.compute, transfer.narrow_recv.slice_rows(0, transfer.received),
                                transfer.recv);
    transfer = {};
}

void Wire::exchange(StepContext& context, Communicator& group, const TransferRows& rows, Label label) const {
    Transfer transfer = start(context, group, rows, label);
    finish(context, transfer);
}

}  // namespace moesaic
