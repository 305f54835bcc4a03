// One training step over the global batch: forward, loss, backward, gradient sums, update.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "comm/routing_trace.h"
#include "launch/batch_windows.h"
#include "launch/expert_rebalancer.h"
#include "launch/micro_batches.h"
#include "launch/nonfinite_search.h"
#include "launch/rank_note.h"
#include "launch/rank_runtime.h"
#include "runtime/data/task_data.h"
#include "runtime/metrics/certificates.h"

namespace moesaic {

class FaultInjector;

/// What the routers of one layer did with the global batch.
struct RouterMeans {
    double weight = 0;  ///< mean of a choice's weight
    /// Means over tokens of the first choice's weight and of the entropy of the router's distribution in
    /// nats; absent where the router has no distribution.
    std::optional<double> first_weight, entropy;
    double dropped = 0;  ///< share of the choices
    bool operator==(const RouterMeans&) const = default;
};

/// What a step measured, the same numbers on every rank and, where nothing else is said, every layout.
struct StepResult {
    double loss = 0;      ///< the task's, per unmasked target of the global batch; of cross-entropy in nats
    double loss_aux = 0;  ///< balance loss without its coefficient, summed over layers
    double loss_z = 0;
    double loss_importance = 0, loss_load = 0;  ///< 0 where they have no coefficient
    double grad_norm = 0;
    i64 targets = 0;
    std::vector<double> sequence_loss;  ///< [B] sum over a sequence's targets
    std::vector<UnitSums> unit_sums;    ///< [B] before the update; empty unless asked for
    std::vector<i64> expert_counts;     ///< [MoE layers, E] choices of each expert in the global batch
    std::vector<i64> dropped;           ///< [MoE layers] of those choices, for lack of capacity
    std::vector<RouterMeans> routers;   ///< [MoE layers]
    std::vector<RankNote> notes;        ///< by rank
    bool stop_requested = false;        ///< some rank was told to stop
    /// [MoE layers] rows of the fullest expert-parallel rank over the mean: of the layout, not of the model.
    std::vector<double> rank_max_over_mean;
};

/// Writes sequences [first, first + count) of the global batch of `step` (from 1) to `windows`. Of examples a
/// sequence is one.
using BatchSource = std::function<void(i64 step, i64 first, i64 count, WindowBuffer windows)>;

/// The targets of a sequence of the global batch of `step` that make up a unit each.
using UnitRanges = std::function<std::vector<TargetRange>(i64 step, i64 sequence)>;

class TrainingStep {
  public:
    TrainingStep(RankRuntime& runtime, const Config& config, BatchSource batches);
    /// Trains on the batches of the contract, which follow from run.seed.
    TrainingStep(RankRuntime& runtime, const Config& config, const TaskData& data);

    /// Collective over the world. Computes the loss and this rank's share of the reduced gradients of batch
    /// `step` (from 1). Every rank hears every rank's note.
    [[nodiscard]] StepResult forward_backward(i64 step, const RankNote& note = {});
    /// Collective over the world, after forward_backward of `step` whose loss or norm is not finite: where.
    [[nodiscard]] NonfiniteOrigin find_nonfinite(i64 step);
    /// From now on step s trains on batch s + shift.
    void shift_batches(i64 shift) { batch_shift_ = shift; }
    /// May be null; outlives this.
    void inject(FaultInjector* faults) { faults_ = faults; }
    /// From now on results hold unit_sums with these scales, or none. Cross-entropy, and no MoMLP. Without
    /// `ranges` a sequence is a unit.
    void score_units(const std::optional<LossScales>& scales, UnitRanges ranges = {}) {
        scales_ = scales;
        unit_ranges_ = std::move(ranges);
    }
    /// This rank's seconds with that, of all steps.
    [[nodiscard]] double unit_seconds() const { return unit_seconds_; }
    /// May be null; outlives this. Sees what the routers decide for each micro-batch.
    void watch_routing(RoutingObserver* observer) { observer_ = observer; }
    /// From now on every step's routing goes into a file that all ranks share (comm/routing_trace.h).
    void record_routing(const std::string& file);
    /// Collective over the world. Clips and updates weights and routers, and places experts anew where that
    /// is due; returns the learning rate. Needs forward_backward of the same step. `skipped`: steps so far
    /// that have left out their update.
    double update(i64 step, double grad_norm, i64 skipped = 0);
    [[nodiscard]] double learning_rate_of(i64 step) const;
    /// What the last update moved, if anything.
    [[nodiscard]] const std::optional<PlacementRecord>& moved() const { return moved_; }

    [[nodiscard]] const MicroBatches& micro_batches() const { return micro_batches_; }

  private:
    [[nodiscard]] bool balances_globally() const;
    [[nodiscard]] Batch load_batch(i64 step, MicroBatches::Part part);
    /// Targets of the global batch that are not masked. Collective over the world where
    /// task.data.document_mask is set: then alone their number depends on the samples.
    [[nodiscard]] i64 count_targets(i64 step);
    /// Collective over the world: forward passes alone, for exact sums over the whole batch (scope `global`).
    void look_ahead(i64 step, GlobalBatch& global);
    /// Collective over the world. Forward and backward of this rank's micro-batch `index`; adds to `record`
    /// and `counts`. A step's only micro-step completes `global` itself.
    void micro_step(i64 step, i64 index, GlobalBatch& global, std::vector<double>& record,
                    std::vector<i64>& counts);
    /// Of sequence `sequence` of the batch, from its targets' losses and margins.
    [[nodiscard]] UnitSums sum_units(i64 step, i64 sequence, std::span<const double> losses,
                                     std::span<const double> margins) const;
    /// Writes the units of a micro-batch's sequences, in their order.
    void score_part(i64 step, const MicroBatches::Part& part, const ForwardResult& result, double* numbers);
    void write_trace(StepContext& context, MicroBatches::Part part, const ModelSaved& saved);
    void set_rank_loads(StepResult& result) const;
    /// Collective over the world.
    void sum_counts(std::vector<i64>& counts);
    /// Collective over the world: every rank's record becomes the step's numbers.
    [[nodiscard]] StepResult gather_results(std::vector<double>& mine);

    RankRuntime& runtime_;
    const Config& config_;
    BatchSource batches_;
    MicroBatches micro_batches_;
    BatchWindows windows_;
    std::vector<i64> expert_counts_;  // of the last batch
    std::optional<RoutingTraceWriter> trace_;
    std::optional<LossScales> scales_;
    double unit_seconds_ = 0;
    UnitRanges unit_ranges_;
    std::optional<ExpertRebalancer> rebalancer_;
    std::optional<PlacementRecord> moved_;
    i64 batch_shift_ = 0;
    FaultInjector* faults_ = nullptr;
    RoutingObserver* observer_ = nullptr;
    NonfiniteSearch search_;  // what this rank has seen in the step
};

}  // namespace moesaic
