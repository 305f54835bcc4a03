// Rows go straight from a token's rank into the expert's rank's memory, and back by reading there.
#pragma once

#include <chrono>

#include "comm/exchange/exchange.h"
#include "comm/shared_window.h"

namespace moesaic {

/// For ranks of one machine. Each holds its rows in a window that all of them reach, so that a row is copied
/// once and lands where it is computed on: dispatch writes x's rows into peers' rows grouped by expert, and
/// y is the weighted sum of rows read from peers' results. The backward mirrors it: gradients of results are
/// written over the results, dx is the sum of rows read from peers. Nothing is packed for sending.
///
/// Memory: per layer and kept round two regions of capacity_rows() rows in the window, rows and results; and
/// three that all layers share, rows and results of rounds that are not kept, and gradients of rows. Where
/// there are several rounds, results are brought to their tokens' rank round by round, as flat does.
///
/// Order: every use is enclosed in meetings of the ranks. A rank comes to a meeting after all its work so
/// far; so what peers write or read in between is theirs alone. The results of a layer are read once in the
/// forward and overwritten by the rank that read them, which needs no further meeting.
class SharedMemoryExchange final : public Exchange {
  public:
    /// Collective over mesh.experts().
    SharedMemoryExchange(const Mesh& mesh, const ExchangeSizes& sizes);

    DispatchPlan plan(StepContext&, const Routing&, int layer) override;
    ArrivingRows start_dispatch(StepContext&, const DispatchPlan&, std::size_t round,
                                ConstTensorView x) override;
    ArrivingRows start_combine_backward(StepContext&, const DispatchPlan&, std::size_t round,
                                        ExchangeBackward&) override;
    ArrivedRows finish_arrival(StepContext&, const DispatchPlan&, std::size_t round, ArrivingRows) override;
    ExpertRows result_rows(StepContext&) override;
    void combine(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows results,
                 ConstTensorView weight, ExchangeSaved&) override;
    Tensor finish_combine(StepContext&, const DispatchPlan&, ConstTensorView weight, ExchangeSaved&) override;
    ExchangeBackward begin_backward(StepContext&, const DispatchPlan&, ConstTensorView dy,
                                    ConstTensorView weight, ExchangeSaved&) override;
    void dispatch_backward(StepContext&, const DispatchPlan&, std::size_t round, ExpertRows d_rows,
                           ExchangeBackward&) override;
    ExchangeGradients finish_backward(StepContext&, const DispatchPlan&, ExchangeBackward) override;
    /// Copying is work of the same cores.
    [[nodiscard]] bool looks_ahead() const override { return false; }

  private:
    /// A piece of every rank's segment, numbered alike everywhere.
    struct Region {
        i64 number = 0;
    };
    /// Regions of rows that wait for a backward, and as many of results.
    [[nodiscard]] i64 kept() const { return sizes().layers * sizes().rounds_kept; }
    [[nodiscard]] i64 place_of(int layer);
    [[nodiscard]] Region rows_of(const DispatchPlan&, std::size_t round);
    [[nodiscard]] Region results_of(const DispatchPlan&, std::size_t round);
    [[nodiscard]] Region gradients() const { return {2 * kept() + 2}; }
    /// This rank's rows of a region [C,H].
    [[nodiscard]] TensorView own(Region region) const;
    /// All ranks' rows of a region, by address [.,H].
    [[nodiscard]] TensorView all(Region region) const;
    [[nodiscard]] TensorView rows_from(i64 first, i64 count) const;

    /// From here on the exchange stream goes on after all work so far on compute.
    void begin(StepContext&);
    /// Collective over mesh.experts(): begin, and no rank goes on before all of them have come.
    void begin_together(StepContext&, Label);
    /// Compute goes on after the exchange stream.
    void end(StepContext&);
    /// The same, and the ledger counts `sent_rows` to each rank, whoever of the two copied them.
    void end(StepContext&, Label, Counts sent_rows);
    [[nodiscard]] u64 arrive(StepContext&, Label);
    /// Until a region is written again a whole step has gone through the caches. Stores past them then save
    /// reading what is overwritten; few rows are better left where the peer finds them.
    [[nodiscard]] bool past_caches(i64 rows) const;
    void write_rows(StepContext&, const DispatchChunk&, ConstTensorView from, ConstTensorView index,
                    Region to);
    void read_into_slots(StepContext&, const DispatchChunk&, Region from, TensorView slots);

    Communicator& group_;
    std::unique_ptr<SharedWindow> window_;
    SharedMeeting meeting_;
    i64 segment_rows_ = 0;       // from one rank's row to the same row of the next rank
    i64 cache_bytes_ = 0;        // that a core has for itself
    u64 meetings_ = 0;           // that were enqueued
    std::vector<int> layers_;    // by place
    std::vector<u64> forwards_;  // by place: which forward's rows lie there
    u64 forward_ = 0;
    Region result_rows_;  // what result_rows gives out
    std::chrono::steady_clock::time_point began_;
};

/// Collective over mesh.experts().
[[nodiscard]] std::unique_ptr<Exchange> make_shared_memory_exchange(const Mesh&, const ExchangeSizes&,
                                                                    const ExchangeSettings&);

}  // namespace moesaic
