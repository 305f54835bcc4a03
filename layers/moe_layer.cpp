#include "layers/moe_layer.h"

#include <algorithm>

#include "layers/capacity.h"
#include "layers/router_confidence.h"

namespace moesaic {

namespace {

/// With capacity.pad the rows on which every expert computes: those of all micro-batches of a micro-step.
i64 padded_rows_of(const ModelSpec& spec, const Mesh& mesh) {
    if (!spec.capacity || !spec.capacity->pad) return 0;
    return mesh.expert_parallel() * most_rows_of_micro_batch(spec);
}

/// C: the receive budget, or all that the group can send to one rank where that is less; with capacity.pad
/// every expert's full capacity, which the configuration has made sure the budget admits.
i64 capacity_of(const ModelSpec& spec, const Mesh& mesh) {
    if (const i64 padded = padded_rows_of(spec, mesh)) return padded * mesh.local_experts();
    const i64 choices = router_traits(spec.router).chooses_tokens ? spec.experts : spec.top_k;
    const i64 everything =
        mesh.expert_parallel() * spec.micro_tokens() * std::min<i64>(choices, mesh.local_experts());
    return std::min(receive_capacity(spec.micro_tokens(), spec.top_k, spec.receive_budget),
                    std::max<i64>(everything, 1));
}

}  // namespace

ExchangeSizes exchange_sizes(const ModelSpec& spec, const Mesh& mesh, DType dtype) {
    ExchangeSizes sizes;
    sizes.tokens = spec.micro_tokens();
    sizes.choices = router_traits(spec.router).chooses_tokens ? spec.experts : spec.top_k;
    sizes.width = spec.width;
    sizes.capacity_rows = capacity_of(spec, mesh);
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
      router_(make_router(spec, layer, store)),
      exchange_(exchange),
      experts_(spec, layer, mesh.first_expert(), mesh.local_experts(), exchange.capacity_rows(), store) {
    if (spec.shared_experts > 0) shared_.emplace(spec, layer, store);
}

Tensor MoELayer::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    if (context.phase != Phase::recompute) decide(context, in, saved);
    for (std::size_t round = 0; round < saved.plan.chunks.size(); ++round) {
        round_forward(context, in, round, saved);
    }
    Tensor y = exchange_.finish_combine(context, saved.plan, saved.followed().weight, saved.exchange);
    if (shared_) shared_->add_to(context, saved.shared, y);
    return y;
}

/// Collective over mesh.experts(). The router's choice, what a capacity leaves of it, and the plan that
/// follows.
void MoELayer::decide(StepContext& context, const LayerInput& in, Saved& saved) const {
    saved.routing = router_->route(context, in, saved.router);
    const RouterSaved& router = saved.router;
    saved.router.totals =
        sum_router(context, spec_, in.seq_len,
                   {router.probability, router.log_sum_exp, router.load_probability}, saved.routing);
    if (spec_.capacity) {
        saved.kept = keep_within_capacity(context, spec_, in.seq_len, router.probability, saved.routing);
    }
    if (context.phase == Phase::train) sum_confidence(context, saved.routing, saved.router);
    if (context.observer != nullptr) context.observer->routed(context, layer_, saved.routing);
    saved.plan = exchange_.plan(context, saved.followed(), layer_);
    // The plan has waited for compute: the counts are there.
    if (spec_.capacity) saved.router.totals.dropped = saved.router.totals.chosen() - saved.plan.slots;
}

Tensor MoELayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                          Saved& saved) const {
    ExchangeBackward backward =
        exchange_.begin_backward(context, saved.plan, dy, saved.followed().weight, saved.exchange);
    const Tensor dx_shared = shared_ ? shared_->backward(context, in, dy, saved.shared) : Tensor();
    // Ascending rounds: the experts' gradients add rows in the order of one round.
    for (std::size_t round = 0; round < saved.plan.chunks.size(); ++round) {
        round_backward(context, in, round, saved, backward);
    }
    ExchangeGradients gradients = exchange_.finish_backward(context, saved.plan, std::move(backward));
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

/// Collective over mesh.experts().
ExpertRows MoELayer::dispatch(StepContext& context, const LayerInput& in, std::size_t round,
                              const DispatchPlan& plan) const {
    return exchange_.finish_arrival(context, plan, round,
                                    exchange_.start_dispatch(context, plan, round, in.x));
}

/// Collective over mesh.experts().
void MoELayer::round_forward(StepContext& context, const LayerInput& in, std::size_t round,
                             Saved& saved) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    auto arriving = exchange_.start_dispatch(context, saved.plan, round, in.x);
    // Needs no row of another rank: an exchange that runs beside it is hidden behind it.
    if (round == 0 && shared_) shared_->compute(context, in, saved.shared);
    ExpertRows rows = exchange_.finish_arrival(context, saved.plan, round, std::move(arriving));
    ExpertGroup::Saved experts;
    ExpertRows results = exchange_.result_rows(context);
    const TensorView out = results.rows.slice_rows(0, received);
    if (padded_rows_ > 0) {
        MOESAIC_ASSERT(saved.plan.chunks.size() == 1, "padded experts in {} rounds",
                       saved.plan.chunks.size());
        saved.padding.emplace(context, padded_rows_, chunk.rows_per_expert, chunk.rows_per_source);
        rows = ExpertRows(saved.padding->pad(context, rows.rows.slice_rows(0, received)));
        Tensor padded = context.backend.allocate(rows.rows.shape, rows.rows.dtype);
        experts_.forward(context, rows.rows, saved.padding->rows_per_expert(), padded, experts);
        saved.padding->unpad(context, padded, out);
    } else {
        experts_.forward(context, rows.rows.slice_rows(0, received), chunk.rows_per_expert, out, experts);
    }
    exchange_.combine(context, saved.plan, round, std::move(results), saved.followed().weight,
                      saved.exchange);
    if (round == 0) {
        saved.rows = std::move(rows);
        saved.experts = std::move(experts);
    }
}

/// Collective over mesh.experts().
void MoELayer::round_backward(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved,
                              ExchangeBackward& backward) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    if (round > 0) {
        saved.rows = dispatch(context, in, round, saved.plan);
        experts_.recompute(context, saved.rows.rows.slice_rows(0, received), chunk.rows_per_expert,
                           saved.experts);
    }
    saved.experts.round = {static_cast<i64>(round), static_cast<i64>(saved.plan.chunks.size())};
    const ExpertRows d_out = exchange_.finish_arrival(
        context, saved.plan, round, exchange_.start_combine_backward(context, saved.plan, round, backward));
    ExpertRows d_results = exchange_.result_rows(context);
    const ConstTensorView d_arrived = d_out.rows.slice_rows(0, received);
    const TensorView d_rows = d_results.rows.slice_rows(0, received);
    if (saved.padding) {
        const Tensor d_padded = saved.padding->pad(context, d_arrived);
        Tensor d_padded_rows = context.backend.allocate(d_padded.shape(), d_padded.dtype());
        experts_.backward(context, saved.rows.rows, saved.padding->rows_per_expert(),
                          saved.padding->rows_per_source(), d_padded, d_padded_rows, saved.experts);
        saved.padding->unpad(context, d_padded_rows, d_rows);
    } else {
        experts_.backward(context, saved.rows.rows.slice_rows(0, received), chunk.rows_per_expert,
                          chunk.rows_per_source, d_arrived, d_rows, saved.experts);
    }
    exchange_.dispatch_backward(context, saved.plan, round, std::move(d_results), backward);
}

}  // namespace moesaic
