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
    /// Rows by expert -> this round's rows of `slots` [T*K,H], there after finish_return. Ends the return of
    /// the round before. Collective over mesh.experts().
    void start_return(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows rows, TensorView slots,
                      ReturningRows&, Label) const;
    static void finish_return(StepContext&, const DispatchPlan&, TensorView slots, ReturningRows&);
};

}  // namespace moesaic
