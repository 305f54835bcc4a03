// How far a run is in its stream of training sequences: what its weights may have met.
#pragma once

#include <algorithm>

#include "launch/step_policy.h"
#include "runtime/data/first_share.h"

namespace moesaic {

/// Of the weights after a step. Where returns to a checkpoint left batches out, training is ahead of its
/// steps; what was left out counts as met, since weights of the attempt that failed had met it.
struct StreamPosition {
    i64 step = 0, batch_shift = 0;
    i64 batch_sequences = 1;
    double training_share = 1;  ///< task.data.training_share of the run: no sequence beyond it is ever met

    /// Of a checkpoint: `observers` of its manifest.
    static StreamPosition of(i64 step, const std::map<std::string, std::vector<double>>& observers,
                             const TrainConfig& train, double training_share = 1) {
        return {step, batch_shift_of(observers), train.batch_sequences, training_share};
    }
    /// The weights may have met the first so many of the stream and no others, in the first epoch and later.
    [[nodiscard]] i64 sequences() const { return (step + batch_shift) * batch_sequences; }
    /// The same of the first epoch, which has so many sequences where all of the data are trained on.
    [[nodiscard]] i64 of_first_epoch(i64 epoch) const {
        return std::min(sequences(), FirstShare::size_of(training_share, epoch));
    }
    /// Of `epoch` different sequences they were trained on so many at most, those left out not counted.
    [[nodiscard]] i64 trained_of(i64 epoch) const { return std::min(step * batch_sequences, epoch); }
};

}  // namespace moesaic
