#include "comm/exchange/shared_memory_exchange.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "comm/dispatch_layout.h"
#include "runtime/base/host_memory.h"

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;

i64 row_bytes_of(const ExchangeSizes& sizes) {
    return sizes.width * size_of(sizes.dtype);
}

/// Rows of a segment: `regions` of them, and as many more as make it a whole number of cache lines.
i64 rows_of_segment(const ExchangeSizes& sizes, i64 regions) {
    const i64 row_bytes = row_bytes_of(sizes);
    const i64 unit = std::lcm(i64{64}, row_bytes) / row_bytes;
    return (regions * sizes.capacity_rows + unit - 1) / unit * unit;
}

Tensor index_tensor(StepContext& context, i64 capacity, const std::vector<i32>& values) {
    Tensor tensor = context.backend.allocate({capacity}, DType::int32);
    std::ranges::copy(values, tensor.as<i32>());
    return tensor;
}

/// Slots of a round's rows in the order in which they are sent.
std::vector<i32> slots_of(const DispatchChunk& chunk) {
    std::vector<i32> slots;
    for (std::size_t peer = 0; peer < chunk.send_rows.size(); ++peer) {
        for (i64 row = 0; row < chunk.send_rows[peer]; ++row)
            slots.push_back(static_cast<i32>(chunk.first_slot[peer] + row));
    }
    return slots;
}

}  // namespace

std::unique_ptr<Exchange> make_shared_memory_exchange(const Mesh& mesh, const ExchangeSizes& sizes,
                                                      const ExchangeSettings& settings) {
    if (settings.wire && *settings.wire != sizes.dtype)
        throw UserError("parallel.wire: shared_memory copies rows as they are; use auto");
    return std::make_unique<SharedMemoryExchange>(mesh, sizes);
}

SharedMemoryExchange::SharedMemoryExchange(const Mesh& mesh, const ExchangeSizes& sizes)
    : Exchange(sizes),
      group_(mesh.experts()),
      meeting_(mesh.experts()),
      segment_rows_(rows_of_segment(sizes, 2 * sizes.layers * sizes.rounds_kept + 3)),
      cache_bytes_(own_cache_bytes()) {
    const i64 addresses = segment_rows_ * group_.size();
    if (addresses > std::numeric_limits<i32>::max())
        throw UserError(
            fmt::format("parallel.exchange: shared_memory numbers rows in 31 bits, and {} ranks "
                        "have {}; use flat, or a lower parallel.receive_budget",
                        group_.size(), addresses));
    window_ = group_.share_memory(segment_rows_ * row_bytes_of(sizes), {"rows of the exchange"});
}

DispatchPlan SharedMemoryExchange::plan(StepContext& context, const Routing& routing, int layer) {
    DispatchPlan plan = Exchange::plan(context, routing, layer);
    const i64 choices = plan.tokens * plan.choices;
    const LoadTable table = load_table(plan, context.mesh);
    for (std::size_t round = 0; round < plan.chunks.size(); ++round) {
        DispatchChunk& chunk = plan.chunks[round];
        const std::vector<i32> addresses = addresses_at_receivers(
            table, group_.rank(), static_cast<i64>(round), capacity_rows(), segment_rows_);
        chunk.address_of_send = index_tensor(context, choices, addresses);
        if (plan.chunks.size() > 1) {
            chunk.slot_of_send = index_tensor(context, choices, slots_of(chunk));
            continue;
        }
        std::vector<i32> of_choice(static_cast<std::size_t>(choices));
        std::ranges::transform(
            plan.slot_of_choice.as<i32>(), plan.slot_of_choice.as<i32>() + choices, of_choice.begin(),
            [&](i32 slot) { return slot < 0 ? -1 : addresses[static_cast<std::size_t>(slot)]; });
        plan.address_of_choice = context.backend.allocate({plan.tokens, plan.choices}, DType::int32);
        std::ranges::copy(of_choice, plan.address_of_choice.as<i32>());
    }
    return plan;
}

// ---------------------------------------------------------------- regions of the window

i64 SharedMemoryExchange::place_of(int layer) {
    if (sizes().layers == 1) {
        forwards_.resize(1);
        return 0;
    }
    const auto found = std::ranges::find(layers_, layer);
    const i64 place = found - layers_.begin();
    if (found == layers_.end()) {  // in the order of the first forward, which is the same on all ranks
        MOESAIC_ASSERT(std::ssize(layers_) < sizes().layers, "layer {} is one of more than {}", layer,
                       sizes().layers);
        layers_.push_back(layer);
        forwards_.push_back(0);
    }
    return place;
}

SharedMemoryExchange::Region SharedMemoryExchange::rows_of(const DispatchPlan& plan, std::size_t round) {
    const auto number = static_cast<i64>(round);
    return {2 *
            (number < sizes().rounds_kept ? place_of(plan.layer) * sizes().rounds_kept + number : kept())};
}

SharedMemoryExchange::Region SharedMemoryExchange::results_of(const DispatchPlan& plan, std::size_t round) {
    return {rows_of(plan, round).number + 1};
}

TensorView SharedMemoryExchange::rows_from(i64 first, i64 count) const {
    return {{window_->data() + first * row_bytes_of(sizes()), sizes().dtype, Device::cpu,
             Shape{count, sizes().width}}};
}

TensorView SharedMemoryExchange::own(Region region) const {
    return rows_from(group_.rank() * segment_rows_ + region.number * capacity_rows(), capacity_rows());
}

TensorView SharedMemoryExchange::all(Region region) const {
    return rows_from(region.number * capacity_rows(), (group_.size() - 1) * segment_rows_ + capacity_rows());
}

// ---------------------------------------------------------------- order between ranks

void SharedMemoryExchange::begin(StepContext& context) {
    context.exchange.wait(context.compute.record());
    run_on_host(context.exchange, [this] { began_ = Clock::now(); });
}

void SharedMemoryExchange::begin_together(StepContext& context, Label label) {
    begin(context);
    ++meetings_;
    run_on_host(context.exchange, [this, label] { meeting_.meet(label); });
}

u64 SharedMemoryExchange::arrive(StepContext& context, Label label) {
    run_on_host(context.exchange, [this, label] { (void)meeting_.arrive(label); });
    return ++meetings_;
}

void SharedMemoryExchange::end(StepContext& context) {
    run_on_host(context.exchange, [this] {
        group_.count_seconds(std::chrono::duration<double>(Clock::now() - began_).count());
    });
    context.compute.wait(context.exchange.record());
}

void SharedMemoryExchange::end(StepContext& context, Label label, Counts sent_rows) {
    run_on_host(context.exchange, [this, label, rows = std::vector<i64>(sent_rows.begin(), sent_rows.end())] {
        group_.count_rows(label, rows, row_bytes_of(sizes()));
    });
    end(context);
}

// ---------------------------------------------------------------- rows

bool SharedMemoryExchange::past_caches(i64 rows) const {
    return rows * row_bytes_of(sizes()) > cache_bytes_;
}

void SharedMemoryExchange::write_rows(StepContext& context, const DispatchChunk& chunk, ConstTensorView from,
                                      ConstTensorView index, Region to) {
    const i64 sent = chunk.sent();
    context.backend.gather_rows(context.exchange, {.in = from,
                                                   .index = index.slice_rows(0, sent),
                                                   .out = all(to),
                                                   .place = chunk.address_of_send.slice_rows(0, sent),
                                                   .past_caches = past_caches(sent)});
}

void SharedMemoryExchange::read_into_slots(StepContext& context, const DispatchChunk& chunk, Region from,
                                           TensorView slots) {
    const i64 sent = chunk.sent();
    context.backend.gather_rows(context.exchange, {.in = all(from),
                                                   .index = chunk.address_of_send.slice_rows(0, sent),
                                                   .out = slots,
                                                   .place = chunk.slot_of_send.slice_rows(0, sent)});
}

ArrivingRows SharedMemoryExchange::start_dispatch(StepContext& context, const DispatchPlan& plan,
                                                  std::size_t round, ConstTensorView x) {
    const Label label{kDispatchPhase, plan.layer};
    const DispatchChunk& chunk = plan.chunks[round];
    ArrivingRows arriving;
    const Region region = rows_of(plan, round);
    if (round == 0) forwards_[static_cast<std::size_t>(place_of(plan.layer))] = ++forward_;
    begin_together(context, label);  // nobody reads the region any more
    write_rows(context, chunk, x, chunk.token_of_send, region);
    arriving.meeting = arrive(context, label);
    arriving.label = label;
    end(context, label, chunk.send_rows);
    arriving.arrived.rows = own(region);
    arriving.result_region = results_of(plan, round).number;
    return arriving;
}

ArrivingRows SharedMemoryExchange::start_combine_backward(StepContext& context, const DispatchPlan& plan,
                                                          std::size_t round, ExchangeBackward& backward) {
    const Label label{kCombineBackwardPhase, plan.layer};
    const DispatchChunk& chunk = plan.chunks[round];
    const Region region = results_of(plan, round);
    if (plan.chunks.size() > 1) {
        begin_together(context, label);
        write_rows(context, chunk, backward.d_slots, chunk.slot_of_send, region);
    } else {
        begin(context);  // begin_backward has written them
    }
    ArrivingRows arriving;
    arriving.meeting = arrive(context, label);
    arriving.label = label;
    end(context, label, chunk.send_rows);
    arriving.arrived.rows = own(region);
    arriving.result_region = gradients().number;
    return arriving;
}

ArrivedRows SharedMemoryExchange::finish_arrival(StepContext& context, const DispatchPlan&, std::size_t,
                                                 ArrivingRows arriving) {
    begin(context);
    run_on_host(context.exchange, [this, meeting = arriving.meeting, label = arriving.label] {
        meeting_.wait(meeting, label);
    });
    end(context);
    result_rows_ = {arriving.result_region};
    return std::move(arriving.arrived);
}

ExpertRows SharedMemoryExchange::result_rows(StepContext&) {
    ExpertRows rows;
    rows.rows = own(result_rows_);
    return rows;
}

void SharedMemoryExchange::combine(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                   ExpertRows, ConstTensorView, ExchangeSaved& saved) {
    const DispatchChunk& chunk = plan.chunks[round];
    saved.forward = forwards_[static_cast<std::size_t>(place_of(plan.layer))];
    if (plan.chunks.size() > 1 && round == 0)
        saved.results = context.backend.allocate({plan.tokens * plan.choices, sizes().width}, sizes().dtype);
    const Label label{kCombinePhase, plan.layer};
    begin_together(context, label);
    if (plan.chunks.size() > 1) read_into_slots(context, chunk, results_of(plan, round), saved.results);
    end(context, label, chunk.recv_rows);
}

Tensor SharedMemoryExchange::finish_combine(StepContext& context, const DispatchPlan& plan,
                                            ConstTensorView weight, ExchangeSaved& saved) {
    Tensor y = context.backend.allocate({plan.tokens, sizes().width}, sizes().dtype);
    const bool one_round = plan.chunks.size() == 1;
    begin(context);
    context.backend.combine_rows(
        context.exchange,
        {.rows = one_round ? ConstTensorView(all(results_of(plan, 0))) : ConstTensorView(saved.results),
         .slot = one_round ? plan.address_of_choice : plan.slot_of_choice,
         .weight = weight,
         .y = y});
    end(context);
    return y;
}

ExchangeBackward SharedMemoryExchange::begin_backward(StepContext& context, const DispatchPlan& plan,
                                                      ConstTensorView dy, ConstTensorView weight,
                                                      ExchangeSaved& saved) {
    MOESAIC_ASSERT(saved.forward == forwards_[static_cast<std::size_t>(place_of(plan.layer))],
                   "layer {}: a later forward has overwritten the rows of forward {}", plan.layer,
                   saved.forward);
    const bool one_round = plan.chunks.size() == 1;
    const TensorView peers = all(results_of(plan, 0));
    ExchangeBackward backward;
    backward.dy = dy;
    backward.d_weight = context.backend.allocate(weight.shape, weight.dtype);
    if (!one_round) backward.d_slots = context.backend.allocate(saved.results.shape(), sizes().dtype);
    begin(context);
    // In one round each result is read by this rank alone, which leaves its gradient in the same place.
    context.backend.combine_rows_backward(
        context.exchange, {.rows = one_round ? ConstTensorView(peers) : ConstTensorView(saved.results),
                           .slot = one_round ? plan.address_of_choice : plan.slot_of_choice,
                           .weight = weight,
                           .dy = dy,
                           .d_rows = one_round ? peers : backward.d_slots.view(),
                           .d_weight = backward.d_weight});
    end(context);
    return backward;
}

void SharedMemoryExchange::dispatch_backward(StepContext& context, const DispatchPlan& plan,
                                             std::size_t round, ExpertRows, ExchangeBackward& backward) {
    const DispatchChunk& chunk = plan.chunks[round];
    const Label label{kDispatchBackwardPhase, plan.layer};
    begin_together(context, label);
    if (plan.chunks.size() > 1) read_into_slots(context, chunk, gradients(), backward.d_slots);
    end(context, label, chunk.recv_rows);
}

ExchangeGradients SharedMemoryExchange::finish_backward(StepContext& context, const DispatchPlan& plan,
                                                        ExchangeBackward backward) {
    ExchangeGradients gradients_of_inputs;
    gradients_of_inputs.dx = context.backend.allocate({plan.tokens, sizes().width}, sizes().dtype);
    gradients_of_inputs.d_weight = std::move(backward.d_weight);
    const bool one_round = plan.chunks.size() == 1;
    begin(context);
    context.backend.combine_rows(
        context.exchange,
        {.rows = one_round ? ConstTensorView(all(gradients())) : ConstTensorView(backward.d_slots),
         .slot = one_round ? plan.address_of_choice : plan.slot_of_choice,
         .weight = {},
         .y = gradients_of_inputs.dx});
    end(context);
    return gradients_of_inputs;
}

}  // namespace moesaic
