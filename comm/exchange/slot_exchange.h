// What exchanges share whose results come back to the token's rank one by one, and are weighted there.
#pragma once

#include "comm/exchange/exchange.h"

namespace moesaic {

/// Results and gradients of rows return into slots [T*K,H]; kinds differ in how rows get there and back.
class SlotExchange : public Exchange {
  public:
    SlotExchange(const ExchangeSizes& sizes, Wire wire) : Exchange(sizes), wire_(wire) {}

    void combine(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows results,
                 ConstTensorView weight, ExchangeSaved&) final;
    Tensor finish_combine(StepContext&, const DispatchPlan&, ConstTensorView weight, ExchangeSaved&) final;
    ExchangeBackward begin_backward(StepContext&, const DispatchPlan&, ConstTensorView dy,
                                    ConstTensorView weight, ExchangeSaved&) final;
    void dispatch_backward(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows d_rows,
                           ExchangeBackward&) final;
    ExchangeGradients finish_backward(StepContext&, const DispatchPlan&, ExchangeBackward) final;

  protected:
    /// Rows by expert -> this round's rows of `slots` [T*K,H]. Collective over mesh.experts(). Nothing where
    /// they are there, else to be handed to finish_return().
    [[nodiscard]] virtual std::optional<ReturningRows> start_return(StepContext&, const DispatchPlan&,
                                                                    std::size_t round, ExpertRows rows,
                                                                    TensorView slots, Label) = 0;
    /// From here on compute may read the round's slots.
    virtual void finish_return(StepContext&, const DispatchPlan&, ReturningRows&, TensorView slots);
    [[nodiscard]] const Wire& wire() const { return wire_; }

  private:
    void rows_to_slots(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows rows,
                       TensorView slots, Label, std::optional<ReturningRows>& returning);
    void arrive(StepContext&, const DispatchPlan&, std::optional<ReturningRows>& returning, TensorView slots);

    Wire wire_;
};

/// Calls visit(first row on the wire, first slot, rows) for every destination of a round, in `order` (empty:
/// by rank).
template <class Visit>
void for_each_destination(const DispatchChunk& chunk, std::span<const int> order, Visit visit) {
    i64 row = 0;
    for (std::size_t i = 0; i < chunk.send_rows.size(); ++i) {
        const std::size_t peer = order.empty() ? i : static_cast<std::size_t>(order[i]);
        if (chunk.send_rows[peer] > 0) visit(row, chunk.first_slot[peer], chunk.send_rows[peer]);
        row += chunk.send_rows[peer];
    }
}

}  // namespace moesaic
