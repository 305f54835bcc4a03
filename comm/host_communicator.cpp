#include "comm/host_communicator.h"

#include <chrono>
#include <numeric>
#include <vector>

#include "comm/row_checks.h"
#include "runtime/base/checksum.h"
#include "runtime/device_memory.h"

namespace moesaic {

namespace {

template <class View>
i64 row_bytes_of(const View& view) {
    return view.cols() * size_of(view.dtype);
}

i64 sum_of(Counts rows) {
    i64 total = 0;
    for (const i64 count : rows) {
        MOESAIC_ASSERT(count >= 0, "a count of rows is {}", count);
        total += count;
    }
    return total;
}

template <class View>
void check_rows(const View& view, Counts rows, int size, const std::string& where) {
    MOESAIC_ASSERT(host_may_access(view.device), "{} with memory that the host cannot read", where);
    MOESAIC_ASSERT(std::ssize(rows) == size, "{} with {} counts for {} ranks", where, rows.size(), size);
    MOESAIC_ASSERT(sum_of(rows) == view.rows(), "{} with counts of {} rows for {}", where, sum_of(rows),
                   view.shape.text());
}

constexpr i64 kSmallMessage = 8 << 10;  // bytes to and from a rank that take microseconds

std::byte* bytes_of(const StagedRows& rows) {
    return static_cast<std::byte*>(rows.data());
}

/// What a verb only reads, for StagedRows.
TensorView writable(ConstTensorView view) {
    return {{const_cast<void*>(view.data), view.dtype, view.device, view.shape}};
}

using Use = StagedRows::Use;

}  // namespace

void HostCommunicator::all_to_all_rows(Stream& stream, ConstTensorView send, Counts send_rows,
                                       TensorView recv, Counts recv_rows, Label label) {
    check_rows(send, send_rows, size(), describe("all_to_all_rows", label));
    check_rows(recv, recv_rows, size(), describe("all_to_all_rows", label));
    // A view without rows may have any width.
    const i64 row_bytes = send.rows() ? row_bytes_of(send) : recv.rows() ? row_bytes_of(recv) : 0;
    MOESAIC_ASSERT(recv.rows() == 0 || row_bytes_of(recv) == row_bytes, "{} sends rows of {} bytes into {}",
                   describe("all_to_all_rows", label), row_bytes, recv.shape.text());
    const RowChecks& checks = row_checks();  // of this thread; the work may run on another
    const StagedRows from(staging_, stream, writable(send), Use::read);
    StagedRows to(staging_, stream, recv, Use::write);
    if (static_cast<HostStream&>(stream).inline_execution()) {
        timed_exchange({bytes_of(from), send_rows, bytes_of(to), recv_rows, row_bytes, label}, checks);
        return;
    }
    run_on_host(stream, [this, row_bytes, label, &checks, sent = bytes_of(from), received = bytes_of(to),
                         from_rows = std::vector<i64>(send_rows.begin(), send_rows.end()),
                         to_rows = std::vector<i64>(recv_rows.begin(), recv_rows.end())] {
        timed_exchange({sent, from_rows, received, to_rows, row_bytes, label}, checks);
    });
    to.finish();
}

void HostCommunicator::all_gather_rows(Stream& stream, ConstTensorView mine, TensorView all, Counts rows,
                                       Label label) {
    check_rows(all, rows, size(), describe("all_gather_rows", label));
    const i64 own = rows[static_cast<std::size_t>(rank())];
    const i64 row_bytes = all.rows() ? row_bytes_of(all) : 0;
    MOESAIC_ASSERT(mine.rows() == own && (own == 0 || row_bytes_of(mine) == row_bytes),
                   "{} of {} as {} rows of {}", describe("all_gather_rows", label), mine.shape.text(), own,
                   all.shape.text());
    const StagedRows from(staging_, stream, writable(mine), Use::read);
    StagedRows to(staging_, stream, all, Use::write);
    if (static_cast<HostStream&>(stream).inline_execution()) {
        timed_gather({bytes_of(from), bytes_of(to), rows, row_bytes, label});
        return;
    }
    run_on_host(stream, [this, row_bytes, label, own_rows = bytes_of(from), all_rows = bytes_of(to),
                         counts = std::vector<i64>(rows.begin(), rows.end())] {
        timed_gather({own_rows, all_rows, counts, row_bytes, label});
    });
    to.finish();
}

void HostCommunicator::broadcast(Stream& stream, TensorView data, int root, Label label) {
    MOESAIC_ASSERT(root >= 0 && root < size(), "{} from rank {}", describe("broadcast", label), root);
    StagedRows rows(staging_, stream, data, rank() == root ? Use::read : Use::write);
    run_on_host(stream, [this, here = bytes_of(rows), bytes = data.bytes(), root, label] {
        FlightRecorder::Call call = flight("broadcast", label);
        call.rows = 1;
        call.row_bytes = bytes;
        call.shape = static_cast<u64>(bytes);
        const FlightRecorder::Scope scope(flights(), call);
        broadcast_now({here, bytes, root, label});
    });
    rows.finish();
}

void HostCommunicator::send(Stream& stream, ConstTensorView data, int peer, Label label) {
    check_peer(peer, "send", label);
    const StagedRows rows(staging_, stream, writable(data), Use::read);
    run_on_host(stream, [this, here = bytes_of(rows), bytes = data.bytes(), peer, label] {
        const FlightRecorder::Scope scope(flights(), pairwise_flight("send", bytes, label));
        send_now({here, bytes, peer, label});
    });
}

void HostCommunicator::recv(Stream& stream, TensorView data, int peer, Label label) {
    check_peer(peer, "recv", label);
    StagedRows rows(staging_, stream, data, Use::write);
    run_on_host(stream, [this, here = bytes_of(rows), bytes = data.bytes(), peer, label] {
        const FlightRecorder::Scope scope(flights(), pairwise_flight("recv", bytes, label));
        recv_now({here, bytes, peer, label});
    });
    rows.finish();
}

void HostCommunicator::reduce_in_order(Stream& stream, std::shared_ptr<Tensor> parts, TensorView into,
                                       ReduceOp op) {
    StagedRows sum(staging_, stream, into, Use::write);
    Communicator::reduce_in_order(stream, std::move(parts),
                                  {{sum.data(), into.dtype, Device::cpu, into.shape}}, op);
    sum.finish();
}

void HostCommunicator::timed_exchange(const Exchange& exchange, const RowChecks& checks) {
    FlightRecorder::Call call = flight("all_to_all_rows", exchange.label);
    call.rows = sum_of(exchange.send_rows);
    call.row_bytes = exchange.row_bytes;
    const FlightRecorder::Scope scope(flights(), call);
    const auto start = std::chrono::steady_clock::now();
    exchange_now(exchange);
    if (checks.tamper) spoil(exchange, checks);
    if (checks.checksums && size() > 1) compare_checksums(exchange);
    count_since(start, (call.rows + sum_of(exchange.recv_rows)) * exchange.row_bytes);
    count_rows(exchange.label, exchange.send_rows, exchange.row_bytes);
}

/// Own rows stand among the others and do not travel: those before them or, without such, those after them.
void HostCommunicator::spoil(const Exchange& exchange, const RowChecks& checks) const {
    const auto own = static_cast<std::size_t>(rank());
    i64 first = 0, count = sum_of(exchange.recv_rows.first(own));
    if (count == 0) {
        first = exchange.recv_rows[own];
        count = sum_of(exchange.recv_rows.subspan(own + 1));
    }
    if (count > 0)
        checks.tamper(exchange.label, exchange.recv + first * exchange.row_bytes, count * exchange.row_bytes);
}

void HostCommunicator::compare_checksums(const Exchange& exchange) {
    const auto peers = static_cast<std::size_t>(size());
    const auto checksums_of = [&](const std::byte* rows, Counts counts) {
        std::vector<u64> checksums;
        for (const i64 count : counts) {
            const i64 bytes = count * exchange.row_bytes;
            checksums.push_back(checksum_of(rows, static_cast<std::size_t>(bytes)));
            rows += bytes;
        }
        return checksums;
    };
    const std::vector<u64> sent = checksums_of(exchange.send, exchange.send_rows);
    const std::vector<u64> arrived = checksums_of(exchange.recv, exchange.recv_rows);
    std::vector<u64> expected(peers);
    const std::vector<i64> one_each(peers, 1);
    exchange_now({reinterpret_cast<const std::byte*>(sent.data()), one_each,
                  reinterpret_cast<std::byte*>(expected.data()), one_each, sizeof(u64), exchange.label});
    for (std::size_t peer = 0; peer < peers; ++peer) {
        if (arrived[peer] == expected[peer]) continue;
        throw Error(fmt::format(
            "{} rows from rank {} of '{}' are not what it sent in {}: checksum {:016x} was sent, {:016x} "
            "arrived; memory or network of one of the two machines corrupts data",
            exchange.recv_rows[peer], peer, name(), describe("all_to_all_rows", exchange.label),
            expected[peer], arrived[peer]));
    }
}

void HostCommunicator::timed_gather(const Gather& gather) {
    FlightRecorder::Call call = flight("all_gather_rows", gather.label);
    call.rows = gather.rows[static_cast<std::size_t>(rank())];
    call.row_bytes = gather.row_bytes;
    for (const i64 rows : gather.rows) call.shape = call.shape * 1099511628211u + static_cast<u64>(rows);
    const FlightRecorder::Scope scope(flights(), call);
    const auto start = std::chrono::steady_clock::now();
    gather_now(gather);
    count_since(start, sum_of(gather.rows) * gather.row_bytes / size());
    count_gathered(gather.label, gather.rows[static_cast<std::size_t>(rank())] * gather.row_bytes);
}

void HostCommunicator::count_since(std::chrono::steady_clock::time_point start, i64 bytes) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    count_seconds(seconds);
    if (size() > 1 && bytes <= kSmallMessage) count_waiting(seconds);
}

FlightRecorder::Call HostCommunicator::pairwise_flight(std::string_view verb, i64 bytes,
                                                       const Label& label) const {
    FlightRecorder::Call call = flight(verb, label);
    call.rows = 1;
    call.row_bytes = bytes;
    call.pairwise = true;
    return call;
}

void HostCommunicator::check_peer(int peer, std::string_view verb, const Label& label) const {
    MOESAIC_ASSERT(peer >= 0 && peer < size() && peer != rank(), "{} with peer {} on rank {} of {}",
                   describe(verb, label), peer, rank(), size());
}

}  // namespace moesaic
