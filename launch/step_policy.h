// What becomes of a step whose loss or gradient is not finite, or far larger than usual.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "runtime/config/config.h"

namespace moesaic {

enum class StepVerdict : std::uint8_t {
    take,      ///< update
    skip,      ///< no update; go on with the next batch
    rollback,  ///< go back to a checkpoint
    stop,
};

struct StepJudgement {
    StepVerdict verdict = StepVerdict::take;
    std::string kind;                 ///< of the alarm: "nonfinite" or "gradient_spike"
    std::string what;                 ///< in words
    double value = 0, threshold = 0;  ///< of a spike
    bool finite = true;
};

/// Where a run went back from, and how often since it last got beyond that step. Of this process alone.
struct Returns {
    i64 failed_step = 0;
    i64 count = 0;
    i64 batch_shift = 0;  ///< of the attempt that failed
};

/// train.nonfinite, train.spike and train.most_skips. Fed with numbers that all ranks agree on it says the
/// same on every rank, and after a resumption what it would have said without.
class StepPolicy {
  public:
    explicit StepPolicy(const TrainConfig& config, const Returns& returns = {})
        : config_(config), returns_(returns) {}

    [[nodiscard]] StepJudgement judge(i64 step, double loss, double grad_norm);
    /// Updates that were left out so far, in the whole run.
    [[nodiscard]] i64 skipped() const { return skipped_; }
    /// By so many batches the run is ahead of its steps (returns that left batches out).
    [[nodiscard]] i64 batch_shift() const { return batch_shift_; }
    /// After judge has said rollback: for the next attempt.
    [[nodiscard]] const Returns& returns() const { return returns_; }

    [[nodiscard]] std::map<std::string, std::vector<double>> observers() const;
    /// To be called where the run begins or goes on from a checkpoint of `step`. The first return repeats the
    /// steps as they were, which mends what a machine has spoilt; later ones leave out their batches.
    void begin(i64 step, const std::map<std::string, std::vector<double>>& observers);

  private:
    TrainConfig config_;
    Returns returns_;
    i64 skipped_ = 0, skipped_on_end_ = 0, batch_shift_ = 0;
    std::deque<double> norms_;  // of the last steps that were taken
};

/// StepPolicy::batch_shift of a checkpoint's observers.
[[nodiscard]] i64 batch_shift_of(const std::map<std::string, std::vector<double>>& observers);

}  // namespace moesaic
