// Rows cross in one all-to-all over all expert-parallel ranks, a row per kept choice.
#pragma once

#include "comm/exchange/slot_exchange.h"

namespace moesaic {

class FlatExchange final : public SlotExchange {
  public:
    using SlotExchange::SlotExchange;

    ArrivingRows start_dispatch(StepContext&, const DispatchPlan&, std::size_t round,
                                ConstTensorView x) override;
    ArrivingRows start_combine_backward(StepContext&, const DispatchPlan&, std::size_t round,
                                        ExchangeBackward&) override;
    ArrivedRows finish_arrival(StepContext&, const DispatchPlan&, std::size_t round, ArrivingRows) override;

  protected:
    std::optional<ReturningRows> start_return(StepContext&, const DispatchPlan&, std::size_t round,
                                              ExpertRows rows, TensorView slots, Label) override;
    void finish_return(StepContext&, const DispatchPlan&, ReturningRows&, TensorView slots) override;

  private:
    /// Rows as sent [sent,H] -> experts. Collective over mesh.experts().
    [[nodiscard]] ArrivingRows start_travel(StepContext&, const DispatchPlan&, std::size_t round,
                                            ConstTensorView send, Tensor memory_of_send, Label) const;
    /// Rows by expert -> as they were sent, in `back` [sent,H]. Collective over mesh.experts().
    [[nodiscard]] Transfer start_reverse(StepContext&, const DispatchPlan&, std::size_t round,
                                         ExpertRows rows, TensorView back, Label) const;
};

}  // namespace moesaic
