#include "comm/self_communicator.h"

#include <cstring>

#include "comm/process_window.h"

namespace moesaic {

std::unique_ptr<Communicator> SelfCommunicator::split(int, int, std::string name) {
    return std::make_unique<SelfCommunicator>(std::move(name), settings());
}

std::unique_ptr<SharedWindow> SelfCommunicator::make_window(i64 bytes, Label) {
    const i64 segment = SharedWindow::rounded(bytes);
    return std::make_unique<ProcessWindow>(ProcessWindow::allocate(segment), segment,
                                           ProcessWindow::Waiting{});
}

void SelfCommunicator::exchange_now(const Exchange& exchange) {
    if (exchange.send_rows[0] != exchange.recv_rows[0]) {
        throw Error(fmt::format("{}: sends {} rows to itself and expects {} in {}", speaker(),
                                exchange.send_rows[0], exchange.recv_rows[0],
                                describe("all_to_all_rows", exchange.label)));
    }
    const i64 bytes = exchange.send_rows[0] * exchange.row_bytes;
    if (bytes) std::memcpy(exchange.recv, exchange.send, static_cast<std::size_t>(bytes));
}

void SelfCommunicator::gather_now(const Gather& gather) {
    const i64 bytes = gather.rows[0] * gather.row_bytes;
    if (bytes && gather.all != gather.mine) {
        std::memcpy(gather.all, gather.mine, static_cast<std::size_t>(bytes));
    }
}

}  // namespace moesaic
