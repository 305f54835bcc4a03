// Rows cross in two hops: to the partner on the expert's node, then within the node.
#pragma once

#include "comm/exchange/node_hops.h"
#include "comm/exchange/slot_exchange.h"

namespace moesaic {

/// A rank sends one message to each other node instead of one to each rank there. Across first, because what
/// a rank then sends over the network is its own tokens, however uneven the experts are loaded; the imbalance
/// stays inside nodes.
class HierarchicalExchange final : public SlotExchange {
  public:
    HierarchicalExchange(const Mesh& mesh, const ExchangeSizes& sizes, Wire wire)
        : SlotExchange(sizes, wire), hops_(mesh, sizes, wire) {}

    DispatchPlan plan(StepContext&, const Routing&, int layer) override;
    ArrivingRows start_dispatch(StepContext&, const DispatchPlan&, std::size_t round,
                                ConstTensorView x) override;
    ArrivingRows start_combine_backward(StepContext&, const DispatchPlan&, std::size_t round,
                                        ExchangeBackward&) override;
    ArrivedRows finish_arrival(StepContext&, const DispatchPlan&, std::size_t round, ArrivingRows) override;

  protected:
    std::optional<ReturningRows> start_return(StepContext&, const DispatchPlan&, std::size_t round,
                                              ExpertRows rows, TensorView slots, Label) override;

  private:
    /// Rows in the order in which they leave [sent,H] to proxies. Collective over mesh.across_nodes().
    [[nodiscard]] ArrivingRows start_travel(StepContext&, const DispatchPlan&, std::size_t round,
                                            ConstTensorView send, Tensor memory_of_send, Label) const;

    NodeHops hops_;
};

}  // namespace moesaic
