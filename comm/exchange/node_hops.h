// The two hops of an exchange by nodes and back: rows at a proxy to and from experts, and across nodes.
#pragma once

#include "comm/exchange/exchange.h"
#include "comm/exchange/node_layout.h"

namespace moesaic {

/// Buffers of a proxy hold P rows, those of arrived tokens U, see node_plan.h; ways back are within, then
/// across.
class NodeHops {
  public:
    NodeHops(const Mesh& mesh, const ExchangeSizes& sizes, Wire wire);

    [[nodiscard]] const NodeSizes& sizes() const { return node_sizes_; }
    [[nodiscard]] const Wire& wire() const { return wire_; }

    /// Collective over mesh.across_nodes(). Rows of this rank, by node, to its proxies; `most_sent` and
    /// `most_received` bound them.
    [[nodiscard]] Transfer start_across(StepContext&, const TransferRows&, Label) const;
    /// Collective over mesh.node(). At the proxy [P,H], in leaving order -> rows by expert [C,H].
    [[nodiscard]] ArrivedRows to_experts(StepContext&, const DispatchPlan&, std::size_t round,
                                         ConstTensorView leaving, Label) const;
    /// Collective over mesh.node(). Rows by expert -> `leaving`, as they left the proxy.
    void to_proxies(StepContext&, const DispatchPlan&, std::size_t round, ConstTensorView rows,
                    TensorView leaving, Label) const;
    /// Collective over mesh.node() and mesh.across_nodes(). Rows by expert -> this round's rows of `slots`.
    void to_slots(StepContext&, const DispatchPlan&, std::size_t round, ConstTensorView rows,
                  TensorView slots, Label) const;

    /// Rows in the order in which they leave this rank are slots in their order.
    [[nodiscard]] bool leaves_in_slot_order(const DispatchPlan& plan) const {
        return ranks_lie_by_node_ && plan.chunks.size() == 1;
    }
    [[nodiscard]] const std::vector<int>& destinations() const { return by_node_; }

  private:
    ExchangeSizes exchange_sizes_;
    NodeSizes node_sizes_;
    Wire wire_;
    std::vector<int> by_node_;
    bool ranks_lie_by_node_, arrives_grouped_;
};

}  // namespace moesaic
