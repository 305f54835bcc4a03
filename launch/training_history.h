// What a run's weights were trained on, over all of its legs: from its start, through every resumption.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launch/run_setup.h"

namespace moesaic {

struct TrainingPosition;

/// Which order the run meets its training data in with this task.data.training_share. Of all models but a
/// MoMLP the size of a batch is no part of it.
[[nodiscard]] u64 order_with_share(const RunSetup& run, double share);

/// Of weights, as a checkpoint's observers keep it.
struct TrainedOn {
    u64 split = 0, order = 0;  ///< RunSetup::split and order_with_share of the last leg
    bool one_split = true;     ///< of all legs that trained
    bool one_order = true;     ///< the same, and their splits
    bool recorded = true;      ///< false: the weights came from elsewhere, or from an earlier version
    /// Of the stream of sequences: the weights may have met the first `met` and no others, have met
    /// `trained` different ones at least, and all of the first `prefix`. What a return to a checkpoint left
    /// out counts as met, since weights of the attempt that failed had met it, and not as trained on.
    i64 met = 0, trained = 0, prefix = 0;
};
/// Absent in checkpoints of earlier versions and of other programs.
[[nodiscard]] std::optional<TrainedOn> trained_on(
    const std::map<std::string, std::vector<double>>& observers);
/// TrainedOn::met; of checkpoints that do not have it, as if the batches had always been those of `train`.
[[nodiscard]] i64 met_by(i64 step, const std::map<std::string, std::vector<double>>& observers,
                         const TrainConfig& train);

/// A run's, leg by leg.
class TrainingHistory {
  public:
    explicit TrainingHistory(const RunSetup& run);

    /// To be called once, where the leg begins. `imported`: with another program's or run's weights.
    void begin(const TrainingPosition& position, bool imported);
    /// Training is ahead of its steps by so many batches (StepPolicy::batch_shift).
    void shift_batches(i64 shift) { shift_ = shift; }
    [[nodiscard]] std::map<std::string, std::vector<double>> observers(i64 step) const;

    /// Of the weights after `step`, one of this leg.
    [[nodiscard]] TrainedOn after(i64 step) const;
    /// Sequences of the stream before the batch of the step that follows `step`.
    [[nodiscard]] i64 position(i64 step) const { return (step + shift_) * batch_sequences_; }
    /// Whether it is known what weights had met before there was a record.
    [[nodiscard]] bool recorded() const { return start_.recorded; }
    /// Why data that are held out here may have been trained on; empty: they were not.
    [[nodiscard]] std::string why_not_held_out() const;
    /// Why it is not known which training data were met; empty: it is (`after`).
    [[nodiscard]] std::string why_order_unknown() const;

  private:
    u64 split_, order_;
    std::vector<double> run_numbers_;  // as the observers of earlier versions have them
    i64 batch_sequences_, epoch_;
    i64 start_step_ = 0, shift_ = 0;
    TrainedOn start_;  // where the leg begins
};

}  // namespace moesaic
