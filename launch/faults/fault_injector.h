// One rank's part in the faults that were ordered: what happens when.
#pragma once

#include <string>
#include <vector>

#include "launch/faults/fault.h"
#include "launch/rank_runtime.h"
#include "runtime/base/disk_fault.h"

namespace moesaic {

/// Each fault happens once, those of every checkpoint at each. Whoever has none has no FaultInjector.
class FaultInjector {
  public:
    FaultInjector(std::vector<Fault> faults, int rank) : faults_(std::move(faults)), rank_(rank) {}

    /// On every rank before it does anything else in the step.
    void before_step(RankRuntime& runtime, i64 step);
    /// The rank that gets no tokens in this step; -1: none.
    [[nodiscard]] int idle_rank(i64 step);
    /// When the gradients of a layer are complete on this rank and not yet summed over ranks.
    void gradients_ready(StepContext& context, ParameterStore& store, int layer);

    /// For a thread that writes this rank's part of the checkpoint.
    [[nodiscard]] DiskFault disk(i64 step) const;
    /// This rank's shard is on disk.
    void shard_written(i64 step);
    /// On rank 0, of a complete checkpoint.
    void checkpoint_complete(i64 step, const std::string& folder);

  private:
    /// The fault, if it is due on this rank now; it is spent then.
    Fault* take(FaultType type, i64 step, bool any_rank = false);
    void enter_alone(RankRuntime& runtime);
    void flip_bit_of_rows(i64 bit);
    /// On the first of the ranks that hold the expert.
    void spoil(StepContext& context, ParameterStore& store, const Fault& fault);

    std::vector<Fault> faults_;
    std::vector<bool> spent_ = std::vector<bool>(faults_.size());
    int rank_;
};

}  // namespace moesaic
