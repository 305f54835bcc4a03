// What balance of scope `global` has to know of the whole batch before any backward.
#pragma once

#include "launch/micro_batches.h"
#include "layers/model.h"

namespace moesaic {

/// Collects routers' statistics micro-batch by micro-batch and sums them over the batch: counts exactly, real
/// numbers in the order of micro-batches, so that they are the same bits on every layout.
class BatchSums {
  public:
    BatchSums(const MicroBatches& batches, const ModelSpec& spec);

    /// What this rank's micro-batch of `micro_step` chose, one for each layer with experts.
    void add(i64 micro_step, const std::vector<RouterStatistics>& routers);
    /// Collective over the world. Fills the sums of `global`.
    void gather(Communicator& world, Stream& exchange, GlobalBatch& global);

  private:
    const MicroBatches& batches_;
    bool real_sums_;     // weights and loads are asked for
    std::size_t slots_;  // expert layers * E
    std::vector<i64> counts_;
    std::vector<double> real_;  // [micro-steps, 2 * slots]: weights, loads
};

}  // namespace moesaic
