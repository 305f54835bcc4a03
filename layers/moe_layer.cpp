#include "layers/moe_layer.h"

#include <algorithm>

#include "layers/capacity.h"

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

MoELayer::MoELayer(const ModelSpec& spec, int layer, const Mesh& mesh, ParameterStore& store)
    : spec_(spec),
      layer_(layer),
      padded_rows_(padded_rows_of(spec, mesh)),
      router_(make_router(spec, layer, store)),
      dispatcher_(capacity_of(spec, mesh), spec.width, layer),
      experts_(spec, layer, mesh.first_expert(), mesh.local_experts(), dispatcher_.capacity_rows(), store) {}

Tensor MoELayer::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    Backend& backend = context.backend;
    if (context.phase != Phase::recompute) decide(context, in, saved);
    saved.slots = backend.allocate({saved.routing.slots(), in.x.cols()}, in.x.dtype);
    for (std::size_t round = 0; round < saved.plan.chunks.size(); ++round) {
        round_forward(context, in, round, saved);
    }
    Tensor y = backend.allocate(in.x.shape, in.x.dtype);  // [T,H]
    backend.combine_rows(
        context.compute,
        {.rows = saved.slots, .slot = saved.plan.slot_of_choice, .weight = saved.followed().weight, .y = y});
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
    saved.plan = make_plan(context, saved.followed(), dispatcher_.capacity_rows(), layer_);
    // The plan has waited for compute: the counts are there.
    if (spec_.capacity) saved.router.totals.dropped = saved.router.totals.chosen() - saved.plan.slots;
}

Tensor MoELayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                          Saved& saved) const {
    Backend& backend = context.backend;
    Tensor d_slots = backend.allocate(saved.slots.shape(), in.x.dtype);                              // [S,H]
    Tensor d_weight = backend.allocate(saved.routing.weight.shape(), saved.routing.weight.dtype());  // [T,K]
    backend.combine_rows_backward(context.compute, {.rows = saved.slots,
                                                    .slot = saved.plan.slot_of_choice,
                                                    .weight = saved.followed().weight,
                                                    .dy = dy,
                                                    .d_rows = d_slots,
                                                    .d_weight = d_weight});
    // Ascending rounds: the experts' gradients add rows in the order of one round.
    for (std::size_t round = 0; round < saved.plan.chunks.size(); ++round) {
        round_backward(context, in, round, saved, d_slots);
    }
    Tensor dx = backend.allocate(in.x.shape, in.x.dtype);
    backend.combine_rows(context.compute,
                         {.rows = d_slots, .slot = saved.plan.slot_of_choice, .weight = {}, .y = dx});
    if (saved.kept.expert) {
        keep_within_capacity_backward(context, *spec_.capacity, saved.routing, saved.kept, d_weight);
    }
    if (saved.balance.weight_factor.elements() > 0) {
        backend.add_by_choice(context.compute, {.factor = saved.balance.weight_factor,
                                                .index = saved.routing.expert,
                                                .rows_per_object = saved.balance.rows_per_object,
                                                .d_weight = d_weight});
    }
    router_->backward(context, in, saved.routing, d_weight, saved.balance, saved.router, dx);
    return dx;
}

/// Collective over mesh.experts().
void MoELayer::round_forward(StepContext& context, const LayerInput& in, std::size_t round,
                             Saved& saved) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    Tensor rows = dispatcher_.dispatch(context, saved.plan, round, in.x);  // [C,H]
    ExpertGroup::Saved experts;
    if (padded_rows_ > 0) {
        MOESAIC_ASSERT(saved.plan.chunks.size() == 1, "padded experts in {} rounds",
                       saved.plan.chunks.size());
        saved.padding.emplace(context, padded_rows_, chunk.rows_per_expert, chunk.rows_per_source);
        rows = saved.padding->pad(context, rows.slice_rows(0, received));
        const Tensor out = experts_.forward(context, rows, saved.padding->rows_per_expert(), experts);
        const Tensor unpadded = saved.padding->unpad(context, out);
        dispatcher_.combine(context, saved.plan, round, unpadded.slice_rows(0, received), saved.slots);
    } else {
        const Tensor out =
            experts_.forward(context, rows.slice_rows(0, received), chunk.rows_per_expert, experts);  // [C,H]
        dispatcher_.combine(context, saved.plan, round, out.slice_rows(0, received), saved.slots);
    }
    if (round == 0) {
        saved.rows = std::move(rows);
        saved.experts = std::move(experts);
    }
}

/// Collective over mesh.experts(). This round's rows of d_slots become gradients of x instead of results.
void MoELayer::round_backward(StepContext& context, const LayerInput& in, std::size_t round, Saved& saved,
                              TensorView d_slots) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    const i64 received = chunk.received();
    if (round > 0) {
        saved.rows = dispatcher_.dispatch(context, saved.plan, round, in.x);
        experts_.recompute(context, saved.rows.slice_rows(0, received), chunk.rows_per_expert, saved.experts);
    }
    saved.experts.round = {static_cast<i64>(round), static_cast<i64>(saved.plan.chunks.size())};
    const Tensor d_out = dispatcher_.combine_backward(context, saved.plan, round, d_slots);  // [C,H]
    if (saved.padding) {
        const Tensor d_padded = saved.padding->pad(context, d_out.slice_rows(0, received));
        const Tensor d_rows = experts_.backward(context, saved.rows, saved.padding->rows_per_expert(),
                                                saved.padding->rows_per_source(), d_padded, saved.experts);
        const Tensor unpadded = saved.padding->unpad(context, d_rows);
        dispatcher_.dispatch_backward(context, saved.plan, round, unpadded.slice_rows(0, received), d_slots);
        return;
    }
    const Tensor d_rows =
        experts_.backward(context, saved.rows.slice_rows(0, received), chunk.rows_per_expert,
                          chunk.rows_per_source, d_out.slice_rows(0, received), saved.experts);  // [C,H]
    dispatcher_.dispatch_backward(context, saved.plan, round, d_rows.slice_rows(0, received), d_slots);
}

}  // namespace moesaic
