#include "comm/exchange/slot_exchange.h"

namespace moesaic {

void SlotExchange::finish_return(StepContext& context, const DispatchPlan&, ReturningRows& returning,
                                 TensorView) {
    Wire::finish(context, returning.transfer);
}

void SlotExchange::arrive(StepContext& context, const DispatchPlan& plan,
                          std::optional<ReturningRows>& returning, TensorView slots) {
    if (returning) finish_return(context, plan, *returning, slots);
    returning.reset();
}

/// Collective over mesh.experts(). Where rounds overlap, what returns is waited for after the next round's
/// experts have worked; one round is under way at a time.
void SlotExchange::rows_to_slots(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                 ExpertRows rows, TensorView slots, Label label,
                                 std::optional<ReturningRows>& returning) {
    arrive(context, plan, returning, slots);
    returning = start_return(context, plan, round, std::move(rows), slots, label);
    if (!looks_ahead()) arrive(context, plan, returning, slots);
}

void SlotExchange::combine(StepContext& context, const DispatchPlan& plan, std::size_t round,
                           ExpertRows results, ConstTensorView, ExchangeSaved& saved) {
    if (round == 0) saved.results = context.backend.allocate({plan.most_slots, sizes().width}, sizes().dtype);
    rows_to_slots(context, plan, round, std::move(results), saved.results, {kCombinePhase, plan.layer},
                  saved.returning);
}

Tensor SlotExchange::finish_combine(StepContext& context, const DispatchPlan& plan, ConstTensorView weight,
                                    ExchangeSaved& saved) {
    arrive(context, plan, saved.returning, saved.results);
    Tensor y = context.backend.allocate({plan.tokens, sizes().width}, sizes().dtype);
    context.backend.combine_rows(
        context.compute, {.rows = saved.results, .slot = plan.slot_of_choice, .weight = weight, .y = y});
    return y;
}

ExchangeBackward SlotExchange::begin_backward(StepContext& context, const DispatchPlan& plan,
                                              ConstTensorView dy, ConstTensorView weight,
                                              ExchangeSaved& saved) {
    ExchangeBackward backward;
    backward.dy = dy;
    backward.weight = weight;
    backward.results = saved.results;
    backward.d_slots = context.backend.allocate(saved.results.shape(), sizes().dtype);
    backward.d_weight = context.backend.allocate(weight.shape, weight.dtype);
    context.backend.combine_rows_backward(context.compute, {.rows = saved.results,
                                                            .slot = plan.slot_of_choice,
                                                            .weight = weight,
                                                            .dy = dy,
                                                            .d_rows = backward.d_slots,
                                                            .d_weight = backward.d_weight});
    return backward;
}

void SlotExchange::dispatch_backward(StepContext& context, const DispatchPlan& plan, std::size_t round,
                                     ExpertRows d_rows, ExchangeBackward& backward) {
    rows_to_slots(context, plan, round, std::move(d_rows), backward.d_slots,
                  {kDispatchBackwardPhase, plan.layer}, backward.returning);
}

ExchangeGradients SlotExchange::finish_backward(StepContext& context, const DispatchPlan& plan,
                                                ExchangeBackward backward) {
    arrive(context, plan, backward.returning, backward.d_slots);
    ExchangeGradients gradients;
    gradients.dx = context.backend.allocate({plan.tokens, sizes().width}, sizes().dtype);
    gradients.d_weight = std::move(backward.d_weight);
    context.backend.combine_rows(
        context.compute,
        {.rows = backward.d_slots, .slot = plan.slot_of_choice, .weight = {}, .y = gradients.dx});
    return gradients;
}

}  // namespace moesaic
