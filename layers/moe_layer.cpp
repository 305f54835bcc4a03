#include "layers/moe_layer.h"

#include <algorithm>

namespace moesaic {

namespace {

/// C: the receive budget, or all that the group can send to one rank where that is less.
i64 capacity_of(const ModelSpec& spec, const Mesh& mesh) {
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
      router_(make_router(spec, layer, store)),
      dispatcher_(capacity_of(spec, mesh), spec.width, layer),
      experts_(spec, layer, mesh.first_expert(), mesh.local_experts(), dispatcher_.capacity_rows(), store) {}

Tensor MoELayer::forward(StepContext& context, const LayerInput& in, Saved& saved) const {
    Backend& backend = context.backend;
    if (context.phase != Phase::recompute) {
        saved.routing = router_->route(context, in, saved.router);
        const RouterOutput output{saved.router.probability, saved.router.log_sum_exp,
                                  saved.router.load_probability};
        saved.router.totals = sum_router(context, spec_, in.seq_len, output, saved.routing);
        saved.plan = make_plan(context, saved.routing, dispatcher_.capacity_rows(), layer_);
    }
    saved.slots = backend.allocate({saved.routing.rows(), in.x.cols()}, in.x.dtype);
    for (std::size_t round = 0; round < saved.plan.chunks.size(); ++round) {
        round_forward(context, in, round, saved);
    }
    Tensor y = backend.allocate(in.x.shape, in.x.dtype);  // [T,H]
    backend.combine_rows(
        context.compute,
        {.rows = saved.slots, .slot = saved.plan.slot_of_choice, .weight = saved.routing.weight, .y = y});
    return y;
}

Tensor MoELayer::backward(StepContext& context, const LayerInput& in, ConstTensorView dy,
                          Saved& saved) const {
    Backend& backend = context.backend;
    Tensor d_slots = backend.allocate(saved.slots.shape(), in.x.dtype);                              // [S,H]
    Tensor d_weight = backend.allocate(saved.routing.weight.shape(), saved.routing.weight.dtype());  // [T,K]
    backend.combine_rows_backward(context.compute, {.rows = saved.slots,
                                                    .slot = saved.plan.slot_of_choice,
                                                    .weight = saved.routing.weight,
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
    router_->backward(context, in, saved.routing, d_weight, saved.balance, saved.router, dx);
    return dx;
}

/// Collective over mesh.experts().
void MoELayer::round_forward(StepContext& context, const LayerInput& in, std::size_t round,
                             Saved& saved) const {
    const DispatchChunk& chunk = saved.plan.chunks[round];
    Tensor rows = dispatcher_.dispatch(context, saved.plan, round, in.x);  // [C,H]
    ExpertGroup::Saved experts;
    const Tensor out = experts_.forward(context, rows.slice_rows(0, chunk.received()), chunk.rows_per_expert,
                                        experts);  // [C,H]
    dispatcher_.combine(context, saved.plan, round, out.slice_rows(0, chunk.received()), saved.slots);
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
    const Tensor d_rows =
        experts_.backward(context, saved.rows.slice_rows(0, received), chunk.rows_per_expert,
                          chunk.rows_per_source, d_out.slice_rows(0, received), saved.experts);  // [C,H]
    dispatcher_.dispatch_backward(context, saved.plan, round, d_rows.slice_rows(0, received), d_slots);
}

}  // namespace moesaic
