// Rows cross in one all-to-all over all expert-parallel ranks, a row per kept choice.
#pragma once

#include "comm/exchange/exchange.h"

namespace moesaic {

/// Weights stay with the token's rank: results come back into its slots, and y is summed there.
class FlatExchange final : public Exchange {
  public:
    using Exchange::Exchange;

    ArrivingRows start_dispatch(StepContext&, const DispatchPlan&, std::size_t round,
                                ConstTensorView x) override;
    ArrivingRows start_combine_backward(StepContext&, const DispatchPlan&, std::size_t round,
                                        ExchangeBackward&) override;
    ExpertRows finish_arrival(StepContext&, const DispatchPlan&, std::size_t round, ArrivingRows) override;
    void combine(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows results,
                 ConstTensorView weight, ExchangeSaved&) override;
    Tensor finish_combine(StepContext&, const DispatchPlan&, ConstTensorView weight, ExchangeSaved&) override;
    ExchangeBackward begin_backward(StepContext&, const DispatchPlan&, ConstTensorView dy,
                                    ConstTensorView weight, ExchangeSaved&) override;
    void dispatch_backward(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows d_rows,
                           ExchangeBackward&) override;
    ExchangeGradients finish_backward(StepContext&, const DispatchPlan&, ExchangeBackward) override;

  private:
    /// Rows as sent [sent,H] -> experts. Collective over mesh.experts().
    [[nodiscard]] ArrivingRows start_travel(StepContext&, const DispatchChunk&, ConstTensorView send,
                                            Tensor memory_of_send, Label) const;
    /// Rows by expert -> as they were sent, in `back` [sent,H]. Collective over mesh.experts().
    void reverse_rows(StepContext&, const DispatchChunk&, ConstTensorView rows, TensorView back, Label) const;
    /// Rows by expert -> this round's rows of `slots` [T*K,H]. Collective over mesh.experts().
    void rows_to_slots(StepContext&, const DispatchPlan&, const DispatchChunk&, ConstTensorView rows,
                       TensorView slots, Label) const;
};

}  // namespace moesaic
