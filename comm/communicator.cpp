#include "comm/communicator.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "comm/shared_window.h"
#include "runtime/base/run_context.h"

namespace moesaic {

namespace {

/// Up to this size every rank gathers everything and reduces alone: one message round instead of two.
constexpr i64 kSmallReductionBytes = i64{16} * 1024;

/// `[first, first + rows)` of `total` in `parts` consecutive pieces, as even as can be.
std::vector<i64> even_slices(i64 total, int parts) {
    std::vector<i64> rows(static_cast<std::size_t>(parts), total / parts);
    for (i64 extra = 0; extra < total % parts; ++extra) ++rows[static_cast<std::size_t>(extra)];
    return rows;
}

template <class T>
void reduce_block(ReduceOp op, const T* addend, T* into, i64 count) {
    switch (op) {
        case ReduceOp::sum:
            for (i64 i = 0; i < count; ++i) into[i] = static_cast<T>(into[i] + addend[i]);
            return;
        case ReduceOp::max:  // a NaN on either side stays
            for (i64 i = 0; i < count; ++i)
                into[i] = into[i] >= addend[i] || into[i] != into[i] ? into[i] : addend[i];
            return;
        case ReduceOp::min:
            for (i64 i = 0; i < count; ++i)
                into[i] = into[i] <= addend[i] || into[i] != into[i] ? into[i] : addend[i];
            return;
    }
}

template <class T>
void reduce_parts(ConstTensorView parts, TensorView into, ReduceOp op, int count) {
    constexpr i64 kBlock = 4096;  // elements: the running block stays in the first cache
    const T* source = parts.as<T>();
    T* target = into.as<T>();
    const i64 elements = into.elements();
    for (i64 first = 0; first < elements; first += kBlock) {
        const i64 length = std::min(kBlock, elements - first);
        std::copy_n(source + first, length, target + first);
        for (i64 part = 1; part < count; ++part) {
            reduce_block(op, source + part * elements + first, target + first, length);
        }
    }
}

void reduce_any(ConstTensorView parts, TensorView into, ReduceOp op, int count) {
    switch (into.dtype) {
        case DType::f64:
            return reduce_parts<double>(parts, into, op, count);
        case DType::f32:
            return reduce_parts<float>(parts, into, op, count);
        case DType::int64:
            return reduce_parts<i64>(parts, into, op, count);
        case DType::int32:
            return reduce_parts<i32>(parts, into, op, count);
        case DType::bf16:
            break;
    }
    MOESAIC_ASSERT(false, "reductions of {} are not offered: reduce in f32", name_of(into.dtype));
}

}  // namespace

std::string Label::text() const {
    return layer < 0 ? std::string(operation) : fmt::format("{}, layer {}", operation, layer);
}

Communicator::Communicator(int rank, int size, std::string name,
                           std::shared_ptr<CommunicatorSettings> settings, std::shared_ptr<MemoryPool> pool)
    : rank_(rank),
      size_(size),
      name_(std::move(name)),
      settings_(std::move(settings)),
      pool_(pool ? std::move(pool) : std::make_shared<MemoryPool>()) {
    MOESAIC_ASSERT(size > 0 && rank >= 0 && rank < size, "rank {} of {} in '{}'", rank, size, name_);
    if (!settings_) settings_ = std::make_shared<CommunicatorSettings>();
}

void Communicator::set_peer_nodes(std::vector<int> node_of_peer) {
    MOESAIC_ASSERT(std::ssize(node_of_peer) == size_, "{} nodes for {} ranks", node_of_peer.size(), size_);
    node_of_peer_ = std::move(node_of_peer);
}

i64& Communicator::place_for(SentBytes& bytes, int peer) const {
    if (peer == rank_) return bytes.self;
    const bool near = node_of_peer_.empty() || node_of_peer_[static_cast<std::size_t>(peer)] ==
                                                   node_of_peer_[static_cast<std::size_t>(rank_)];
    return near ? bytes.same_node : bytes.cross_node;
}

void Communicator::count_rows(const Label& label, Counts rows, i64 row_bytes) {
    SentBytes bytes;
    for (int peer = 0; peer < size_; ++peer)
        place_for(bytes, peer) += rows[static_cast<std::size_t>(peer)] * row_bytes;
    settings_->ledger.record(label.operation, label.layer, bytes);
}

void Communicator::count_gathered(const Label& label, i64 bytes_each) {
    SentBytes bytes;
    for (int peer = 0; peer < size_; ++peer) place_for(bytes, peer) += bytes_each;
    settings_->ledger.record(label.operation, label.layer, bytes);
}

void Communicator::all_gather(Stream& stream, ConstTensorView mine, TensorView all, Label label) {
    all_gather_rows(stream, mine, all, std::vector<i64>(static_cast<std::size_t>(size_), mine.rows()), label);
}

void Communicator::reduce_scatter_rows(Stream& stream, ConstTensorView data, Counts rows, TensorView mine,
                                       ReduceOp op, Label label) {
    MOESAIC_ASSERT(std::ssize(rows) == size_, "{} counts for {} ranks", rows.size(), size_);
    const i64 own = rows[static_cast<std::size_t>(rank_)];
    MOESAIC_ASSERT(mine.rows() == own && mine.cols() == data.cols() && mine.dtype == data.dtype,
                   "slice {} of {} into {}", own, data.shape.text(), mine.shape.text());
    auto parts = scratch({own * size_, data.cols()}, data.dtype);
    if (std::ranges::all_of(rows, [own](i64 count) { return count == own; })) {  // the same on every rank
        all_to_all_even_rows(stream, data, own, *parts, label);
    } else {
        all_to_all_rows(stream, data, rows, *parts, std::vector<i64>(static_cast<std::size_t>(size_), own),
                        label);
    }
    reduce_in_order(stream, std::move(parts), mine, op);
}

void Communicator::all_reduce(Stream& stream, TensorView data, ReduceOp op, Label label) {
    if (size_ == 1 || data.elements() == 0) return;
    const TensorView flat = data.flat(0, data.elements());
    if (data.bytes() <= kSmallReductionBytes) {
        auto parts = scratch({size_ * data.elements()}, data.dtype);
        all_gather(stream, flat, *parts, label);
        reduce_in_order(stream, std::move(parts), flat, op);
        return;
    }
    const std::vector<i64> rows = even_slices(data.elements(), size_);
    const i64 first = std::accumulate(rows.begin(), rows.begin() + rank_, i64{0});
    const TensorView mine = flat.slice_rows(first, rows[static_cast<std::size_t>(rank_)]);
    reduce_scatter_rows(stream, flat, rows, mine, op, label);
    all_gather_rows(stream, mine, flat, rows, label);
}

void Communicator::all_to_all_even_rows(Stream& stream, ConstTensorView send, i64 rows, TensorView recv,
                                        Label label) {
    const std::vector<i64> counts(static_cast<std::size_t>(size_), rows);
    all_to_all_rows(stream, send, counts, recv, counts, label);
}

std::unique_ptr<SharedWindow> Communicator::share_memory(i64 bytes, Label label) {
    auto window = make_window(bytes, label);
    shared_bytes_ += window->segment_bytes();
    return window;
}

void Communicator::reduce_in_order(Stream& stream, std::shared_ptr<Tensor> parts, TensorView into,
                                   ReduceOp op) {
    run_on_host(stream, [parts = std::move(parts), into, op, count = size_] {
        reduce_any(parts->view(), into, op, count);
    });
}

std::shared_ptr<Tensor> Communicator::scratch(Shape shape, DType dtype) {
    // The deleter holds the pool: deferred work may outlive this communicator.
    const std::scoped_lock lock(*pool_mutex_);
    return {new Tensor(*pool_, shape, dtype), [pool = pool_, mutex = pool_mutex_](Tensor* tensor) {
                const std::scoped_lock own_lock(*mutex);
                delete tensor;
            }};
}

std::string Communicator::speaker() {
    const RunContext& context = run_context();
    std::string text = fmt::format("rank {} of {}", context.rank, context.world_size);
    if (context.step >= 0) text += fmt::format(", step {}", context.step);
    return text;
}

std::string Communicator::describe(std::string_view verb, const Label& label) const {
    return fmt::format("{} '{}' on communicator '{}'", verb, label.text(), name_);
}

std::string Communicator::timeout_text(std::string_view verb, const Label& label,
                                       std::string_view missing) const {
    std::string text =
        fmt::format("{}: no answer for {} s in {}", speaker(), timeout_seconds(), describe(verb, label));
    if (!missing.empty()) text += fmt::format("; still awaited: rank {}", missing);
    if (settings_->explain_hang) text += "\n" + settings_->explain_hang();
    return text;
}

void Communicator::record_flights(std::vector<int> world_ranks) {
    if (size_ > 1) flight_group_ = settings_->flights.join(name_, std::move(world_ranks));
}

}  // namespace moesaic
