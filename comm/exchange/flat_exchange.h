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
    void rows_to_slots(StepContext&, const DispatchPlan&, std::size_t round, ConstTensorView rows,
                       TensorView slots, Label) override;

  private:
    /// Rows as sent [sent,H] -> experts. Collective over mesh.experts().
    [[nodiscard]] ArrivingRows start_travel(StepContext&, const DispatchPlan&, std::size_t round,
                                            ConstTensorView send, Tensor memory_of_send, Label) const;
    /// Rows by expert -> as they were sent, in `back` [sent,H]. Collective over mesh.experts().
    void reverse_rows(StepContext&, const DispatchPlan&, std::size_t round, ConstTensorView rows,
                      TensorView back, Label) const;
};

}  // namespace moesaic
