#include "comm/nccl/nccl_communicator.h"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <numeric>

#include "comm/shared_window.h"
#include "runtime/base/run_context.h"
#include "runtime/base/trace_range.h"
#include "runtime/cuda/check.h"
#include "runtime/cuda/kernels/reduce.h"
#include "runtime/cuda/launching.h"

namespace moesaic {

namespace {

GpuStream* gpu_stream(Stream& stream) {
    return dynamic_cast<GpuStream*>(&stream);
}

i64 sum_of(Counts rows) {
    return std::reduce(rows.begin(), rows.end());
}

i64 row_bytes_of(ConstTensorView view) {
    return view.cols() * size_of(view.dtype);
}

const std::byte* bytes_of(ConstTensorView view) {
    return static_cast<const std::byte*>(view.data);
}
std::byte* bytes_of(TensorView view) {
    return static_cast<std::byte*>(view.data);
}

void copy(cudaStream_t stream, const void* from, void* to, i64 bytes, std::string_view what) {
    if (bytes == 0 || from == to) return;
    cuda::check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream), what);
}

/// A stream with some memory of the device, for what happens before there is a back end's.
struct OwnStream {
    explicit OwnStream(std::size_t bytes) {
        cuda::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
        void* block = nullptr;
        cuda::check(cudaMalloc(&block, bytes), "memory for a first exchange");
        memory = static_cast<std::byte*>(block);
    }
    ~OwnStream() {
        cudaStreamDestroy(stream);
        cudaFree(memory);
    }
    OwnStream(const OwnStream&) = delete;
    OwnStream& operator=(const OwnStream&) = delete;

    cudaStream_t stream = nullptr;
    std::byte* memory = nullptr;
};

bool on_host(ConstTensorView view) {
    return view.device == Device::cpu && view.bytes() > 0;
}

}  // namespace

/// What a verb reads, in memory of the device.
struct NcclCommunicator::Operand {
    ConstTensorView view;
    std::shared_ptr<Tensor> room{};

    Operand(NcclCommunicator& communicator, GpuStream& stream, ConstTensorView from) : view(from) {
        if (!on_host(from)) return;
        room = communicator.scratch(from.shape, from.dtype);
        view = *room;
        copy(stream.handle(), from.data, room->view().data, from.bytes(), "copying rows to the device");
    }
};

/// What a verb writes, in memory of the device.
struct NcclCommunicator::Target {
    TensorView wanted, view;
    std::shared_ptr<Tensor> room{};

    Target(NcclCommunicator& communicator, TensorView to) : wanted(to), view(to) {
        if (!on_host(to)) return;
        room = communicator.scratch(to.shape, to.dtype);
        view = *room;
    }
    /// After the verb: host memory is written before it returns.
    void finish(GpuStream& stream) const {
        if (!room) return;
        stream.synchronize();
        copy(stream.handle(), room->view().data, wanted.data, wanted.bytes(), "copying rows to the host");
        stream.synchronize();
    }
};

NcclCommunicator::NcclCommunicator(Communicator& host, std::unique_ptr<Communicator> owned_host,
                                   ncclComm_t handle, std::shared_ptr<NcclWatch> watch)
    : Communicator(host.rank(), host.size(), host.name(), host.settings(),
                   std::make_shared<MemoryPool>(Device::cuda)),
      host_(host),
      owned_host_(std::move(owned_host)),
      handle_(handle),
      watch_(std::move(watch)),
      exceptions_(std::uncaught_exceptions()) {
    std::vector<i64> ranks(static_cast<std::size_t>(size()));
    const i64 mine = run_context().rank;
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("start-up");
    host_.all_gather(*stream, view_of(&mine, {1}), view_of(ranks.data(), {size()}), {"ranks of a group"});
    record_flights({ranks.begin(), ranks.end()});
    if (!handle_) return;
    watch_->add(handle_, name());
    try_out();
}

NcclCommunicator::~NcclCommunicator() {
    watch_->remove(handle_, this, std::uncaught_exceptions() > exceptions_);
}

void NcclCommunicator::try_out() {
    const auto ranks = static_cast<std::size_t>(size());
    const OwnStream own(2 * ranks);
    auto* const received = own.memory + ranks;
    std::vector<unsigned char> seen(ranks, 0xFF), mine(ranks, static_cast<unsigned char>(rank() % 251));
    const Label label{"start-up check"};
    const std::string what = describe("all_to_all_rows", label);
    copy(own.stream, mine.data(), own.memory, size(), what);
    watch_->check(ncclAlltoAll(own.memory, received, 1, ncclInt8, handle_, own.stream), what, handle_);
    watch_->settle(handle_, what, start_up_seconds(*this));
    const auto start = std::chrono::steady_clock::now();
    while (cudaStreamQuery(own.stream) == cudaErrorNotReady) {
        (void)cudaGetLastError();
        watch_->poll();
        const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
        if (waited.count() < start_up_seconds(*this)) continue;
        const std::string text = timeout_text("all_to_all_rows", label);
        watch_->fail(text);
        throw Error(text);
    }
    cuda::check(cudaGetLastError(), what);
    copy(own.stream, received, seen.data(), size(), what);
    cuda::check(cudaStreamSynchronize(own.stream), what);
    for (std::size_t peer = 0; peer < ranks; ++peer)
        if (seen[peer] != peer % 251)
            throw Error(
                fmt::format("{}: communicator '{}' delivered wrong values from its rank {} at start-up",
                            speaker(), name(), peer));
}

FlightRecorder::Call NcclCommunicator::call_of(std::string_view verb, const Label& label, i64 rows,
                                               i64 row_bytes) const {
    FlightRecorder::Call call = flight(verb, label);
    call.rows = rows;
    call.row_bytes = row_bytes;
    return call;
}

void NcclCommunicator::check(ncclResult_t result, std::string_view verb, const Label& label) const {
    if (result == ncclSuccess || result == ncclInProgress) return;
    watch_->check(result, describe(verb, label), handle_);
}

template <class Issue>
void NcclCommunicator::enqueue(GpuStream& stream, const FlightRecorder::Call& call, const Label& label,
                               bool anything, const Issue& issue) {
    stream.set_guard(watch_);
    const TraceRange range(label.operation.data());
    watch_->begin(*this, call, label, stream.handle());
    if (anything) {
        check(ncclGroupStart(), call.verb, label);
        issue();
        check(ncclGroupEnd(), call.verb, label);
        watch_->settle(handle_, describe(call.verb, label), timeout_seconds());
    }
    watch_->end(stream.handle());
}

void NcclCommunicator::all_to_all_rows(Stream& stream, ConstTensorView send, Counts send_rows,
                                       TensorView recv, Counts recv_rows, Label label) {
    GpuStream* const gpu = gpu_stream(stream);
    if (!gpu) return host_.all_to_all_rows(stream, send, send_rows, recv, recv_rows, label);
    MOESAIC_ASSERT(std::ssize(send_rows) == size() && std::ssize(recv_rows) == size() &&
                       sum_of(send_rows) == send.rows() && sum_of(recv_rows) == recv.rows(),
                   "{}: counts of {} and {} rows for {} and {}", describe("all_to_all_rows", label),
                   sum_of(send_rows), sum_of(recv_rows), send.shape.text(), recv.shape.text());
    const i64 row_bytes = send.rows() ? row_bytes_of(send) : row_bytes_of(recv);
    MOESAIC_ASSERT(recv.rows() == 0 || row_bytes_of(recv) == row_bytes, "{} sends rows of {} bytes into {}",
                   describe("all_to_all_rows", label), row_bytes, recv.shape.text());
    const Operand from(*this, *gpu, send);
    const Target to(*this, recv);
    exchange_with_peers(*gpu, bytes_of(from.view), send_rows, bytes_of(to.view), recv_rows, row_bytes, label);
    count_rows(label, send_rows, row_bytes);
    to.finish(*gpu);
}

void NcclCommunicator::exchange_with_peers(GpuStream& stream, const std::byte* send, Counts send_rows,
                                           std::byte* recv, Counts recv_rows, i64 row_bytes,
                                           const Label& label) {
    const auto me = static_cast<std::size_t>(rank());
    MOESAIC_ASSERT(send_rows[me] == recv_rows[me], "{} rows from this rank to itself, and {} at it",
                   send_rows[me], recv_rows[me]);
    const i64 travelling = sum_of(send_rows) - send_rows[me] + sum_of(recv_rows) - recv_rows[me];
    const i64 sent_before = sum_of(send_rows.first(me)), received_before = sum_of(recv_rows.first(me));
    const FlightRecorder::Call call = call_of("all_to_all_rows", label, sum_of(send_rows), row_bytes);
    copy(stream.handle(), send + sent_before * row_bytes, recv + received_before * row_bytes,
         send_rows[me] * row_bytes, "copying rows to oneself");
    enqueue(stream, call, label, travelling * row_bytes > 0, [&] {
        for (int peer = 0; peer < size(); ++peer) {
            const i64 out = send_rows[static_cast<std::size_t>(peer)] * row_bytes;
            const i64 in = recv_rows[static_cast<std::size_t>(peer)] * row_bytes;
            const bool other = peer != rank();
            if (other && out > 0)
                check(ncclSend(send, static_cast<std::size_t>(out), ncclInt8, peer, handle_, stream.handle()),
                      call.verb, label);
            if (other && in > 0)
                check(ncclRecv(recv, static_cast<std::size_t>(in), ncclInt8, peer, handle_, stream.handle()),
                      call.verb, label);
            send += out;
            recv += in;
        }
    });
}

void NcclCommunicator::all_to_all_even_rows(Stream& stream, ConstTensorView send, i64 rows, TensorView recv,
                                            Label label) {
    GpuStream* const gpu = gpu_stream(stream);
    const std::vector<i64> counts(static_cast<std::size_t>(size()), rows);
    if (!gpu || !handle_) return all_to_all_rows(stream, send, counts, recv, counts, label);
    MOESAIC_ASSERT(send.rows() == rows * size() && recv.shape.elements() == send.shape.elements() &&
                       recv.dtype == send.dtype,
                   "{}: {} rows a rank of {} into {}", describe("all_to_all_rows", label), rows,
                   send.shape.text(), recv.shape.text());
    const Operand from(*this, *gpu, send);
    const Target to(*this, recv);
    const i64 bytes = rows * row_bytes_of(send);
    enqueue(*gpu, call_of("all_to_all_rows", label, send.rows(), row_bytes_of(send)), label, bytes > 0, [&] {
        check(ncclAlltoAll(from.view.data, to.view.data, static_cast<std::size_t>(bytes), ncclInt8, handle_,
                           gpu->handle()),
              "all_to_all_rows", label);
    });
    count_rows(label, counts, row_bytes_of(send));
    to.finish(*gpu);
}

void NcclCommunicator::all_gather_rows(Stream& stream, ConstTensorView mine, TensorView all, Counts rows,
                                       Label label) {
    GpuStream* const gpu = gpu_stream(stream);
    if (!gpu) return host_.all_gather_rows(stream, mine, all, rows, label);
    const i64 own = rows[static_cast<std::size_t>(rank())], row_bytes = row_bytes_of(all);
    MOESAIC_ASSERT(std::ssize(rows) == size() && sum_of(rows) == all.rows() && mine.rows() == own &&
                       (own == 0 || row_bytes_of(mine) == row_bytes),
                   "{} of {} as {} rows of {}", describe("all_gather_rows", label), mine.shape.text(), own,
                   all.shape.text());
    const Operand from(*this, *gpu, mine);
    const Target to(*this, all);
    const bool even = std::ranges::all_of(rows, [&](i64 count) { return count == own; });  // on every rank
    FlightRecorder::Call call = call_of("all_gather_rows", label, own, row_bytes);
    for (const i64 count : rows) call.shape = call.shape * 1099511628211u + static_cast<u64>(count);
    std::byte* const target = bytes_of(to.view);
    if (!handle_) copy(gpu->handle(), from.view.data, target, own * row_bytes, "copying rows to oneself");
    enqueue(*gpu, call, label, handle_ && all.rows() * row_bytes > 0, [&] {
        i64 first = 0;
        for (int root = 0; root < size() && !even; ++root) {
            const i64 bytes = rows[static_cast<std::size_t>(root)] * row_bytes;
            const void* const source = root == rank() ? from.view.data : target + first;
            if (bytes > 0)
                check(ncclBroadcast(source, target + first, static_cast<std::size_t>(bytes), ncclInt8, root,
                                    handle_, gpu->handle()),
                      call.verb, label);
            first += bytes;
        }
        if (even)
            check(ncclAllGather(from.view.data, target, static_cast<std::size_t>(own * row_bytes), ncclInt8,
                                handle_, gpu->handle()),
                  call.verb, label);
    });
    count_gathered(label, own * row_bytes);
    to.finish(*gpu);
}

void NcclCommunicator::broadcast(Stream& stream, TensorView data, int root, Label label) {
    GpuStream* const gpu = gpu_stream(stream);
    if (!gpu) return host_.broadcast(stream, data, root, label);
    MOESAIC_ASSERT(root >= 0 && root < size(), "{} from rank {}", describe("broadcast", label), root);
    if (!handle_) return;
    const Operand from(*this, *gpu, data);
    const Target to(*this, data);
    FlightRecorder::Call call = call_of("broadcast", label, 1, data.bytes());
    call.shape = static_cast<u64>(data.bytes());
    enqueue(*gpu, call, label, data.bytes() > 0, [&] {
        check(ncclBroadcast(from.view.data, to.view.data, static_cast<std::size_t>(data.bytes()), ncclInt8,
                            root, handle_, gpu->handle()),
              call.verb, label);
    });
    to.finish(*gpu);
}

void NcclCommunicator::send(Stream& stream, ConstTensorView data, int peer, Label label) {
    GpuStream* const gpu = gpu_stream(stream);
    if (!gpu) return host_.send(stream, data, peer, label);
    MOESAIC_ASSERT(peer >= 0 && peer < size() && peer != rank(), "{} with peer {} on rank {} of {}",
                   describe("send", label), peer, rank(), size());
    const Operand from(*this, *gpu, data);
    FlightRecorder::Call call = call_of("send", label, 1, data.bytes());
    call.pairwise = true;
    enqueue(*gpu, call, label, data.bytes() > 0, [&] {
        check(ncclSend(from.view.data, static_cast<std::size_t>(data.bytes()), ncclInt8, peer, handle_,
                       gpu->handle()),
              call.verb, label);
    });
}

void NcclCommunicator::recv(Stream& stream, TensorView data, int peer, Label label) {
    GpuStream* const gpu = gpu_stream(stream);
    if (!gpu) return host_.recv(stream, data, peer, label);
    MOESAIC_ASSERT(peer >= 0 && peer < size() && peer != rank(), "{} with peer {} on rank {} of {}",
                   describe("recv", label), peer, rank(), size());
    const Target to(*this, data);
    FlightRecorder::Call call = call_of("recv", label, 1, data.bytes());
    call.pairwise = true;
    enqueue(*gpu, call, label, data.bytes() > 0, [&] {
        check(ncclRecv(to.view.data, static_cast<std::size_t>(data.bytes()), ncclInt8, peer, handle_,
                       gpu->handle()),
              call.verb, label);
    });
    to.finish(*gpu);
}

std::unique_ptr<SharedWindow> NcclCommunicator::make_window(i64 bytes, Label label) {
    return host_.share_memory(bytes, label);
}

void NcclCommunicator::reduce_in_order(Stream& stream, std::shared_ptr<Tensor> parts, TensorView into,
                                       ReduceOp op) {
    GpuStream* const gpu = gpu_stream(stream);
    if (!gpu) return Communicator::reduce_in_order(stream, std::move(parts), into, op);
    const auto reduction = op == ReduceOp::sum   ? kernels::Reduction::sum
                           : op == ReduceOp::max ? kernels::Reduction::max
                                                 : kernels::Reduction::min;
    const Target to(*this, into);
    const auto reduce = [&]<class T>(T* target) {
        cuda::Launcher{gpu->handle()}.each(
            into.elements(), kernels::ReducePartsElement<T>{parts->view().as<T>(), into.elements(), size(),
                                                            reduction, target});
    };
    MOESAIC_ASSERT(into.dtype != DType::bf16, "reductions of {} are not offered: reduce in f32",
                   name_of(into.dtype));
    if (into.elements() == 0) return;
    if (into.dtype == DType::f64) reduce(to.view.as<double>());
    if (into.dtype == DType::f32) reduce(to.view.as<float>());
    if (into.dtype == DType::int64) reduce(to.view.as<i64>());
    if (into.dtype == DType::int32) reduce(to.view.as<i32>());
    to.finish(*gpu);
}

void NcclCommunicator::abort(std::string_view why) noexcept {
    watch_->fail(why);
    host_.abort(why);
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key, std::string name) {
    auto host = host_.split(color, key, std::move(name));
    Communicator& ranks = *host;
    ncclComm_t handle = nullptr;
    if (handle_) {
        const std::string what = fmt::format("split into '{}'", ranks.name());
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        config.commName = ranks.name().c_str();
        const int group = ranks.size() == 1 ? NCCL_SPLIT_NOCOLOR : color;
        watch_->check(ncclCommSplit(handle_, group, ranks.rank(), &handle, &config), what, handle_);
        watch_->settle(handle_, what, timeout_seconds());
        if (handle) watch_->settle(handle, what, timeout_seconds());
    }
    return std::unique_ptr<Communicator>(new NcclCommunicator(ranks, std::move(host), handle, watch_));
}

}  // namespace moesaic
