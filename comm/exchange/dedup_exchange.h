// A token's row crosses to a node once, however many of its experts live there, and is repeated on arrival.
#pragma once

#include "comm/exchange/node_hops.h"
#include "comm/exchange/slot_exchange.h"

namespace moesaic {

/// The way of tokens to experts that both kinds of dedup share: x or dy once to each node, repeated by the
/// proxy.
class TokenHops {
  public:
    TokenHops(const Mesh& mesh, const ExchangeSizes& sizes, Wire wire) : hops_(mesh, sizes, wire) {}

    [[nodiscard]] const NodeHops& hops() const { return hops_; }
    /// Collective over mesh.across_nodes(). Rows of tokens [T,H] to the proxies on the nodes that they visit.
    [[nodiscard]] ArrivingRows start(StepContext&, const DispatchPlan&, std::size_t round,
                                     ConstTensorView tokens, Label) const;
    /// Collective over mesh.node(). Repeats what arrived for each of a token's choices.
    [[nodiscard]] ArrivedRows finish_dispatch(StepContext&, const DispatchPlan&, std::size_t round,
                                              ArrivingRows) const;
    /// Rows that arrived at the proxy [U,H], times the weights of the choices -> rows in leaving order [P,H].
    /// With `results`, the rows that these are gradients of, also d_weight [U,J].
    [[nodiscard]] Tensor weighted(StepContext&, const DispatchPlan&, std::size_t round,
                                  ConstTensorView arrived, ConstTensorView results,
                                  TensorView d_weight) const;

  private:
    NodeHops hops_;
};

/// `reduce: exact`: every choice's result travels back, and is weighted and added where flat does it.
class DedupExchange final : public SlotExchange {
  public:
    DedupExchange(const Mesh& mesh, const ExchangeSizes& sizes, Wire wire)
        : SlotExchange(sizes, wire), tokens_(mesh, sizes, wire) {}

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
    TokenHops tokens_;
};

/// `reduce: node`: the proxy weights and adds a token's results, and their gradients, so that one row travels
/// back; d_weight is computed there and travels back too. Sums are by node, then over nodes: the same bits on
/// every run of a layout, and those of flat up to rounding.
class NodeReducingExchange final : public Exchange {
  public:
    NodeReducingExchange(const Mesh& mesh, const ExchangeSizes& sizes, Wire wire)
        : Exchange(sizes), tokens_(mesh, sizes, wire) {}

    DispatchPlan plan(StepContext&, const Routing&, int layer) override;
    ArrivingRows start_dispatch(StepContext&, const DispatchPlan&, std::size_t round,
                                ConstTensorView x) override;
    ArrivingRows start_combine_backward(StepContext&, const DispatchPlan&, std::size_t round,
                                        ExchangeBackward&) override;
    ArrivedRows finish_arrival(StepContext&, const DispatchPlan&, std::size_t round, ArrivingRows) override;
    void combine(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows results,
                 ConstTensorView weight, ExchangeSaved&) override;
    Tensor finish_combine(StepContext&, const DispatchPlan&, ConstTensorView weight, ExchangeSaved&) override;
    ExchangeBackward begin_backward(StepContext&, const DispatchPlan&, ConstTensorView dy,
                                    ConstTensorView weight, ExchangeSaved&) override;
    void dispatch_backward(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows d_rows,
                           ExchangeBackward&) override;
    ExchangeGradients finish_backward(StepContext&, const DispatchPlan&, ExchangeBackward) override;

  private:
    /// Adds up each arrived token's rows at the proxy (`leaving` [P,H]), with weights or without, and brings
    /// the sums to the tokens' ranks, where they join `sum` [T,H]. Collective over mesh.across_nodes().
    void add_to_tokens(StepContext&, const DispatchPlan&, std::size_t round, ConstTensorView leaving,
                       bool weighted, TensorView sum, Label) const;
    /// d_weight [U,J] at proxies -> [T,K] at sources. Collective over mesh.across_nodes().
    void bring_weight_gradients(StepContext&, const DispatchPlan&, std::size_t round,
                                ConstTensorView at_proxy, TensorView d_weight) const;

    TokenHops tokens_;
};

}  // namespace moesaic
