#include "layers/moe_layer.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "layers/capacity.h"
#include "layers/router_confidence.h"
#include "runtime/base/trace_range.h"

namespace moesaic {

namespace {

/// With capacity.pad the rows on which every expert computes: those of all micro-batches of a micro-step.
i64 padded_rows_of(const ModelSpec& spec, const Mesh& mesh) {
    if (!spec.capacity || !spec.capacity->pad) return 0;
    return mesh.experts().size() * most_rows_of_micro_batch(spec);
}

/// K of a plan: each choice goes to every slice of its expert.
i64 choices_of(const ModelSpec& spec, const Mesh& mesh) {
    return (router_traits(spec.router).chooses_tokens ? spec.experts : spec.top_k) * mesh.expert_tensor();
}

/// C: the receive budget, or all that the group can send to one rank where that is less; with capacity.pad
/// every expert's full capacity, which the configuration has made sure the budget admits.
i64 capacity_of(const ModelSpec& spec, const Mesh& mesh) {
    if (const i64 padded = padded_rows_of(spec, mesh)) return padded * mesh.local_experts();
    const i64 of_rank = std::min<i64>(choices_of(spec, mesh) / mesh.expert_tensor(), mesh.local_places());
    const i64 everything = mesh.experts().size() * spec.micro_tokens() * of_rank;
    const i64 mean = spec.top_k * mesh.expert_tensor();
    return std::min(receive_capacity(spec.micro_tokens(), mean, spec.receive_budget),
                    std::max<i64>(everything, 1));
}

}  // namespace

ExchangeSizes exchange_sizes(const ModelSpec& spec, const Mesh& mesh, DType dtype) {
    const i64 whole = capacity_of(spec, mesh);
    const i64 mean = spec.micro_tokens() * spec.top_k * mesh.expert_tensor();
    ExchangeSizes sizes;
    sizes.tokens = spec.micro_tokens();
    sizes.choices = choices_of(spec, mesh);
    sizes.width = spec.width;
    // Rows come by expert, then by source: parts of an expert would each be the rows of some sources, and
    // leave the wires of the others idle. Where an expert is all that a rank has, every rank begins with
    // another source.
    sizes.own_rows_first = spec.chunks > 1 && mesh.local_places() == 1 && mesh.experts().size() > 1;
    sizes.parts =
        std::min<i64>(spec.chunks, sizes.own_rows_first ? mesh.experts().size() : mesh.local_experts());
    sizes.capacity_rows = sizes.parts == 1 ? whole : std::min(whole, (mean + sizes.parts - 1) / sizes.parts);
    sizes.rounds_kept = (whole + sizes.capacity_rows - 1) / sizes.capacity_rows;
    sizes.look_ahead = spec.chunks > 1;
    sizes.layers = spec.recompute ? 1 : spec.expert_layers();
    sizes.dtype = dtype;
    return sizes;
}

std::unique_ptr<Exchange> make_exchange(const ModelSpec& spec, const Mesh& mesh, DType dtype) {
    return make_exchange(mesh, exchange_sizes(spec, mesh, dtype), spec.exchange);
}

MoELayer::MoELayer(const ModelSpec& spec, int layer, const Mesh& mesh, Exchange& exchange,
                   ParameterStore& store)
    : spec_(spec),
      layer_(layer),
      padded_rows_(padded_rows_of(spec, mesh)),
      slices_(mesh.expert_tensor()),
      local_experts_(static_cast<std::size_t>(mesh.local_experts())),
      router_(make_router(spec, layer, store)),
      exchange_(exchange),
      experts_(spec, layer, mesh.own_experts(layer), {mesh.slice(), mesh.expert_tensor()},
               exchange.capacity_rows(), store) {
    if (mesh.copy_places() > 0) {
        std::vector<i32> places(static_cast<std::size_t>(mesh.copy_places()));
        std::iota(places.begin(), places.end(), 0);
        copies_.emplace(spec, layer, places, ExpertSlice{mesh.slice(), mesh.expert_tensor()},
                        exchange.capacity_rows(), store.copies());
    }
    if (spec.shared_experts > 0) shared_.emplace(spec, layer, store);
}

Tensor MoELayer::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    if (context.phase != Phase::recompute) decide(context, in, saved);
    const std::size_t rounds = saved.plan.chunks.size();
    saved.rounds.resize(static_cast<std::size_t>(exchange_.sizes().rounds_kept));
    const auto dispatch = [&](std::size_t round) {
        const TraceRange range("dispatch");
        return exchange_.start_dispatch(context, saved.plan, round, in.x);
    };
    ArrivingRows arriving = dispatch(0);
    // Needs no row of another rank: an exchange that runs beside it is hidden behind it.
    if (shared_) {
        const WorkScope scope(context.timeline, context.compute, WorkPhase::feed_forward, layer_);
        shared_->compute(context, in, saved.shared);
    }
    for (std::size_t round = 0; round < rounds; ++round) {
        const auto start_next = [&] {
            if (round + 1 < rounds) arriving = dispatch(round + 1);
        };
        Round passing;
        Round& current = round < saved.rounds.size() ? saved.rounds[round] : passing;
        current.rows = exchange_.finish_arrival(context, saved.plan, round, std::move(arriving));
        if (exchange_.looks_ahead()) start_next();
        round_forward(context, round, current, saved);
        if (!exchange_.looks_ahead()) start_next();
    }
    keep_memory_of_unused_rounds(context, saved);
    const TraceRange range("combine, sums");
    Tensor y = exchange_.finish_combine(context, saved.plan, saved.weight(), saved.exchange);
    if (shared_) shared_->add_to(context, saved.shared, y);
    return y;
}

/// Collective over mesh.experts(). The router's choice, what a capacity leaves of it, and the plan that
/// follows; only the latter waits for others.
void MoELayer::decide(StepContext& context, const LayerInput& in, Saved& saved) const {
    choose(context, in, saved);
    if (context.observer != nullptr) context.observer->routed(context, layer_, saved.routing);
    if (slices_ > 1) saved.of_slices = repeated_for_slices(context, saved.followed().weight);
    saved.plan = exchange_.plan(context, saved.followed(), layer_);
    // The plan has waited for compute: the counts are there.
    if (spec_.capacity)
        saved.router.totals.dropped = saved.router.totals.chosen() - saved.plan.slots / slices_;
}

/// The router's choice, and what a capacity leaves of it.
void MoELayer::choose(StepContext& context, const LayerInput& in, Saved& saved) const {
    const WorkScope scope(context.timeline, context.compute, WorkPhase::router, layer_);
    saved.routing = router_->route(context, in, saved.router);
    const RouterSaved& router = saved.router;
    saved.router.totals =
        router.sums
            ? totals_of(context, *router.sums, saved.routing)
            : sum_router(context, spec_, in.seq_len,
                         {router.probability, router.log_sum_exp, router.load_probability}, saved.routing);
    saved.router.sums.reset();
    if (spec_.capacity) {
        saved.kept = keep_within_capacity(context, spec_, in.seq_len, router.probability, saved.routing);
    }
    if (context.phase == Phase::train) sum_confidence(context, saved.routing, saved.router);
}

/// [T,K] -> [T,K*t]: the product of a column and a row of ones, which is exact.
Tensor MoELayer::repeated_for_slices(StepContext& context, ConstTensorView weight) const {
    const i64 choices = weight.elements();
    Tensor ones = context.backend.allocate({1, slices_}, weight.dtype);
    Tensor repeated = context.backend.allocate({weight.rows(), weight.cols() * slices_}, weight.dtype);
    context.backend.fill(context.compute, 1, ones);
    context.backend.gemm(
        context.compute,
        {.a = weight.reshaped({choices, 1}), .b = ones, .c = repeated.view().reshaped({choices, slices_})});
    return repeated;
}

/// [T,K*t] -> [T,K]: the adjoint, a sum over slices.
Tensor MoELayer::summed_over_slices(StepContext& context, ConstTensorView d_weight) const {
    const i64 choices = d_weight.elements() / slices_;
    Tensor ones = context.backend.allocate({slices_, 1}, d_weight.dtype);
    Tensor sums = context.backend.allocate({d_weight.rows(), d_weight.cols() / slices_}, d_weight.dtype);
    context.backend.fill(context.compute, 1, ones);
    context.backend.gemm(
        context.compute,
        {.a = d_weight.reshaped({choices, slices_}), .b = ones, .c = sums.view().reshaped({choices, 1})});
    return sums;
}

Tensor MoELayer::shared_backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                                 Saved& saved) const {
    if (!shared_) return {};
    const WorkScope scope(context.timeline, context.compute, WorkPhase::feed_forward, layer_, true);
    return shared_->backward(context, in, dy, saved.shared);
}

Tensor MoELayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                          Saved& saved) const {
    ExchangeBackward backward =
        exchange_.begin_backward(context, saved.plan, dy, saved.weight(), saved.exchange);
    const Tensor dx_shared = shared_backward(context, in, dy, saved);
    // Ascending rounds: the experts' gradients add each source's rows in the order of one round.
    const std::size_t rounds = saved.plan.chunks.size();
    const auto combine_backward = [&](std::size_t round) {
        const TraceRange range("combine, backward");
        return exchange_.start_combine_backward(context, saved.plan, round, backward);
    };
    ArrivingRows arriving = combine_backward(0);
    for (std::size_t round = 0; round < rounds; ++round) {
        const auto start_next = [&] {
            if (round + 1 < rounds) arriving = combine_backward(round + 1);
        };
        if (round >= saved.rounds.size()) receive_again(context, in, round, saved);
        const ArrivedRows d_out = exchange_.finish_arrival(context, saved.plan, round, std::move(arriving));
        if (exchange_.looks_ahead()) start_next();
        round_backward(context, round, d_out, saved, backward);
        if (!exchange_.looks_ahead()) start_next();
    }
    ExchangeGradients gradients = exchange_.finish_backward(context, saved.plan, std::move(backward));
    const WorkScope scope(context.timeline, context.compute, WorkPhase::router, layer_, true);
    if (slices_ > 1) gradients.d_weight = summed_over_slices(context, gradients.d_weight);
    if (saved.kept.expert) {
        keep_within_capacity_backward(context, *spec_.capacity, saved.routing, saved.kept,
                                      gradients.d_weight);
    }
    if (saved.balance.weight_factor.elements() > 0) {
        context.backend.add_by_choice(context.compute, {.factor = saved.balance.weight_factor,
                                                        .index = saved.routing.expert,
                                                        .rows_per_object = saved.balance.rows_per_object,
                                                        .d_weight = gradients.d_weight});
    }
    router_->backward(context, in, saved.routing, gradients.d_weight, saved.balance, saved.router,
                      gradients.dx);
    if (shared_) context.backend.add(context.compute, dx_shared, gradients.dx);
    return std::move(gradients.dx);
}

/// Collective over mesh.experts(). Takes the rows that `current` holds through the experts and back.
void MoELayer::round_forward(StepContext& context, std::size_t round, Round& current, Saved& saved) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    ExpertRows results = exchange_.result_rows(context);
    const TensorView out = results.rows.slice_rows(0, received);
    const IndexedRows arrived = current.rows.by_expert(received);
    WorkScope scope(context.timeline, context.compute, WorkPhase::experts, layer_);
    if (padded_rows_ > 0) {
        MOESAIC_ASSERT(saved.plan.chunks.size() == 1, "padded experts in {} rounds",
                       saved.plan.chunks.size());
        saved.padding.emplace(context, padded_rows_, chunk.rows_per_expert, chunk.rows_per_source);
        current.rows = ArrivedRows(saved.padding->pad(context, arrived));
        Tensor padded = context.backend.allocate(current.rows.rows.shape, out.dtype);
        experts_.forward(context, {current.rows.rows}, saved.padding->rows_per_expert(), padded,
                         current.experts);
        saved.padding->unpad(context, padded, out);
    } else {
        experts_forward(context, chunk, arrived, out, current);
    }
    scope.end();
    const TraceRange range("combine");
    exchange_.combine(context, saved.plan, round, std::move(results), saved.weight(), saved.exchange);
}

/// Rows of this rank's experts come first, then those of its copies.
i64 MoELayer::rows_of_experts(const DispatchChunk& chunk) const {
    const auto first = chunk.rows_per_expert.begin();
    return std::accumulate(first, first + static_cast<std::ptrdiff_t>(local_experts_), i64{0});
}

void MoELayer::experts_forward(StepContext& context, const DispatchChunk& chunk, const IndexedRows& rows,
                               TensorView out, Round& current) const {
    const std::span<const i64> groups(chunk.rows_per_expert);
    const i64 own = rows_of_experts(chunk), copied = rows.count() - own;
    experts_.forward(context, rows.slice(0, own), groups.first(local_experts_), out.slice_rows(0, own),
                     current.experts);
    if (copies_)
        copies_->forward(context, rows.slice(own, copied), groups.subspan(local_experts_),
                         out.slice_rows(own, copied), current.copies);
}

void MoELayer::experts_backward(StepContext& context, const DispatchChunk& chunk, const IndexedRows& d_out,
                                TensorView d_rows, Round& current) const {
    const IndexedRows rows = current.rows.by_expert(chunk.received());
    const std::span<const i64> groups(chunk.rows_per_expert), parts(chunk.rows_per_source);
    const std::size_t parts_of_experts = parts.size() / groups.size() * local_experts_;
    const i64 own = rows_of_experts(chunk), copied = rows.count() - own;
    experts_.backward(context, rows.slice(0, own), groups.first(local_experts_),
                      parts.first(parts_of_experts), d_out.slice(0, own), d_rows.slice_rows(0, own),
                      current.experts);
    if (copies_)
        copies_->backward(context, rows.slice(own, copied), groups.subspan(local_experts_),
                          parts.subspan(parts_of_experts), d_out.slice(own, copied),
                          d_rows.slice_rows(own, copied), current.copies);
}

/// How many rounds there are depends on the routing, and memory does not.
void MoELayer::keep_memory_of_unused_rounds(StepContext& context, Saved& saved) const {
    for (std::size_t round = saved.plan.chunks.size(); round < saved.rounds.size(); ++round) {
        Round& unused = saved.rounds[round];
        const DType dtype = exchange_.sizes().dtype;
        if (saved.rounds[0].rows.memory)
            unused.rows = ArrivedRows(context.backend.allocate(saved.rounds[0].rows.rows.shape, dtype));
        experts_.allocate(context, dtype, unused.experts);
        if (copies_) copies_->allocate(context, dtype, unused.copies);
    }
}

/// Collective over mesh.experts(). A round that was not kept takes the place of the last that was.
void MoELayer::receive_again(StepContext& context, const LayerInput& in, std::size_t round,
                             Saved& saved) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    Round& current = saved.rounds.back();
    current = {};  // its memory is for the next
    current.rows = exchange_.finish_arrival(context, saved.plan, round,
                                            exchange_.start_dispatch(context, saved.plan, round, in.x));
    const IndexedRows rows = current.rows.by_expert(chunk.received());
    const std::span<const i64> groups(chunk.rows_per_expert);
    const i64 own = rows_of_experts(chunk);
    experts_.recompute(context, rows.slice(0, own), groups.first(local_experts_), current.experts);
    if (copies_)
        copies_->recompute(context, rows.slice(own, rows.count() - own), groups.subspan(local_experts_),
                           current.copies);
}

/// Collective over mesh.experts().
void MoELayer::round_backward(StepContext& context, std::size_t round, const ArrivedRows& d_out, Saved& saved,
                              ExchangeBackward& backward) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    Round& current = saved.rounds[std::min(round, saved.rounds.size() - 1)];
    current.experts.round = {static_cast<i64>(round), static_cast<i64>(saved.plan.chunks.size()),
                             saved.plan.rule.own_rows_first ? context.mesh.experts().rank() : 0};
    current.experts.open = std::move(saved.open);
    ExpertRows d_results = exchange_.result_rows(context);
    const IndexedRows d_arrived = d_out.by_expert(received);
    const TensorView d_rows = d_results.rows.slice_rows(0, received);
    WorkScope scope(context.timeline, context.compute, WorkPhase::experts, layer_, true);
    if (saved.padding) {
        const Tensor d_padded = saved.padding->pad(context, d_arrived);
        Tensor d_padded_rows = context.backend.allocate(d_padded.shape(), d_padded.dtype());
        experts_.backward(context, {current.rows.rows}, saved.padding->rows_per_expert(),
                          saved.padding->rows_per_source(), {d_padded}, d_padded_rows, current.experts);
        saved.padding->unpad(context, d_padded_rows, d_rows);
    } else {
        current.copies.round = current.experts.round;
        current.copies.open = std::move(saved.open_of_copies);
        experts_backward(context, chunk, d_arrived, d_rows, current);
        saved.open_of_copies = std::move(current.copies.open);
    }
    saved.open = std::move(current.experts.open);
    scope.end();
    const TraceRange range("dispatch, backward");
    exchange_.dispatch_backward(context, saved.plan, round, std::move(d_results), backward);
}

}  // namespace moesaic
