// How token rows reach their experts and come back: four uses of one plan, each the adjoint of another.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/dispatch_plan.h"
#include "comm/exchange/exchange_settings.h"
#include "comm/exchange/expected_traffic.h"
#include "comm/exchange/indexed_rows.h"
#include "comm/exchange/wire.h"

namespace moesaic {

/// Sizes that no routing exceeds, known before the first step: every buffer is as large as they say, so that
/// memory does not depend on routing. Letters as in backend.h.
struct ExchangeSizes {
    i64 tokens = 1;           ///< T, the most of one micro-batch
    i64 choices = 1;          ///< K of a plan: the router's, each for every slice of an expert
    i64 width = 1;            ///< H
    i64 capacity_rows = 1;    ///< C, the most rows that this rank receives in one round
    i64 rounds_kept = 1;      ///< whose rows wait for the backward; those of later rounds are received again
    i64 parts = 1;            ///< in which rows travel at the mean load
    bool look_ahead = false;  ///< rounds are to travel while the experts work on others
    bool own_rows_first = false;  ///< as LoadTable has it: sources are summed in another order
    i64 layers = 1;               ///< whose rows wait for their backward at the same time
    DType dtype = DType::f32;
};

/// What experts make of a round's rows: grouped by local expert [C,H], of which a round uses the first
/// received(). `memory` is empty where the rows lie in memory of the exchange.
struct ExpertRows {
    Tensor memory;
    TensorView rows;

    ExpertRows() = default;
    explicit ExpertRows(Tensor tensor) : memory(std::move(tensor)), rows(memory.view()) {}
};

/// Rows as they arrive, which products read in the order of experts: nobody moves them there. `memory` is
/// empty where the rows lie in memory of the exchange, or are the dispatched tokens or the gradients
/// themselves: dispatched rows of round 0 are then valid as long as the tokens and until the layer's next
/// forward, all others until the next round's, in the order in which the verbs were called.
struct ArrivedRows {
    Tensor memory;
    ConstTensorView rows;   ///< [.,H]
    ConstTensorView index;  ///< i32, of the plan: row i by expert is rows[index[i]]; empty: rows[i]

    ArrivedRows() = default;
    explicit ArrivedRows(Tensor tensor) : memory(std::move(tensor)), rows(memory.view()) {}
    /// The `received` rows of a round by expert.
    [[nodiscard]] IndexedRows by_expert(i64 received) const;
};

/// Results of a round, or gradients of its rows, on their way back to slots.
struct ReturningRows {
    std::size_t round = 0;
    Tensor back;  ///< where the wire puts them first, if elsewhere
    Transfer transfer;
};

/// A backward in progress; tensors that a kind has no use for are empty.
struct ExchangeBackward {
    ConstTensorView dy;       ///< [T,H]
    ConstTensorView weight;   ///< real [T,K]
    ConstTensorView results;  ///< of ExchangeSaved
    Tensor d_slots;           ///< [T*K,H] gradients of results, and round by round gradients of sent rows
    Tensor dx;                ///< [T,H]
    Tensor d_weight;          ///< real [T,K]
    std::optional<ReturningRows> returning;
};

/// Rows on their way to experts.
struct ArrivingRows {
    ArrivedRows arrived;  ///< where they end
    Tensor arrival;       ///< where the wire puts them first, if elsewhere
    Transfer transfer;
    ExchangeBackward* backward = nullptr;  ///< of a combine's backward
    i64 result_region = 0;                 ///< in the exchange's memory, for what experts make of them
    u64 meeting = 0;                       ///< at which peers have written them, where they do
    Label label{};                         ///< what that meeting is for
};

/// What an exchange keeps between forward and backward; it alone knows which rows these are.
struct ExchangeSaved {
    Tensor results;   ///< [.,H] of experts
    Tensor y;         ///< [T,H] until finish_combine
    u64 forward = 0;  ///< number of the forward whose rows lie in the exchange's memory
    std::optional<ReturningRows> returning;  ///< of the last round that was combined
};

struct ExchangeGradients {
    Tensor dx;        ///< [T,H]
    Tensor d_weight;  ///< real [T,K]; 0 for dropped choices
};

/// One per run and rank. y[t] = sum over k of weight[t,k] * result of choice k of token t, and the adjoint.
/// A plan's rounds go in ascending order through each use. A forward is
///   plan, { start_dispatch, finish_arrival, result_rows, combine } for each round, finish_combine;
/// a backward
///   begin_backward, { start_combine_backward, finish_arrival, result_rows, dispatch_backward } for each
///   round, finish_backward, where rows of a round may be dispatched again.
/// start_... of the next round may come before the experts work on this one, so that its rows travel
/// meanwhile; on the compute stream a round's rows are there after finish_arrival. Where an exchange looks
/// ahead, combine and dispatch_backward may return while rows are on their way: the next round's waits for
/// them.
class Exchange {
  public:
    explicit Exchange(const ExchangeSizes& sizes) : sizes_(sizes) {}
    virtual ~Exchange() = default;
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;

    [[nodiscard]] const ExchangeSizes& sizes() const { return sizes_; }
    [[nodiscard]] i64 capacity_rows() const { return sizes_.capacity_rows; }
    /// Whether rounds travel while the experts work on others: then the caller starts the next round first.
    [[nodiscard]] virtual bool looks_ahead() const { return sizes_.look_ahead; }

    /// Collective over mesh.experts(). Where this micro-batch's rows go; `layer` names the collectives.
    [[nodiscard]] virtual DispatchPlan plan(StepContext&, const Routing&, int layer);

    /// Collective over mesh.experts(). x [T,H] -> rows by expert.
    [[nodiscard]] virtual ArrivingRows start_dispatch(StepContext&, const DispatchPlan&, std::size_t round,
                                                      ConstTensorView x) = 0;
    /// Collective over mesh.experts(). The adjoint of combine: dy -> gradients of results by expert.
    [[nodiscard]] virtual ArrivingRows start_combine_backward(StepContext&, const DispatchPlan&,
                                                              std::size_t round, ExchangeBackward&) = 0;
    /// The end of either: from here on compute may read the rows.
    [[nodiscard]] virtual ArrivedRows finish_arrival(StepContext&, const DispatchPlan&, std::size_t round,
                                                     ArrivingRows) = 0;
    /// Memory for what experts make of a round's rows: results or gradients.
    [[nodiscard]] virtual ExpertRows result_rows(StepContext&);
    /// Collective over mesh.experts(). Takes the experts' results of one round.
    virtual void combine(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows results,
                         ConstTensorView weight, ExchangeSaved&) = 0;
    /// Collective over mesh.experts(). After the last round: y [T,H]. weight real [T,K].
    [[nodiscard]] virtual Tensor finish_combine(StepContext&, const DispatchPlan&, ConstTensorView weight,
                                                ExchangeSaved&) = 0;

    /// Collective over mesh.experts(). `dy`, `weight` and `saved` live until finish_backward.
    [[nodiscard]] virtual ExchangeBackward begin_backward(StepContext&, const DispatchPlan&,
                                                          ConstTensorView dy, ConstTensorView weight,
                                                          ExchangeSaved&) = 0;
    /// Collective over mesh.experts(). The adjoint of dispatch: takes gradients of one round's rows.
    virtual void dispatch_backward(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows d_rows,
                                   ExchangeBackward&) = 0;
    /// Collective over mesh.experts(). After the last round.
    [[nodiscard]] virtual ExchangeGradients finish_backward(StepContext&, const DispatchPlan&,
                                                            ExchangeBackward) = 0;

  private:
    ExchangeSizes sizes_;
};

/// One row of the table of exchanges: configuration, tests and benchmarks read it.
struct ExchangeKind {
    std::string_view name;
    std::string_view help;
    bool needs_even_nodes;  ///< NodeGrid::even()
    bool for_one_node;      ///< needs, or gains by, all ranks of a group being on one node
    bool joins_node_mates;  ///< gains by several ranks of a group being on each node, and not without
    std::unique_ptr<Exchange> (*make)(const Mesh&, const ExchangeSizes&, const ExchangeSettings&);
    std::vector<ExpectedBytes> (*expected)(const ExchangeSettings&, const TrafficShape&);
};
[[nodiscard]] const std::vector<ExchangeKind>& exchange_table();

/// Collective over mesh.experts(). Throws UserError for a name that is not in the table.
[[nodiscard]] std::unique_ptr<Exchange> make_exchange(const Mesh&, const ExchangeSizes&,
                                                      const ExchangeSettings&);

}  // namespace moesaic
