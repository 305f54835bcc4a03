// The alarms of a run: which values are alarming, in what words, and what then happens.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/config/alarm_config.h"
#include "runtime/metrics/alarm.h"
#include "runtime/metrics/records.h"

namespace moesaic {

enum class AlarmKind : std::uint8_t {
    dead_experts,
    load_max_over_mean,
    entropy,
    dropped_fraction,
    changed_expert,
    bias_saturation,
    loss_spike,
    heldout_rise,
    leak,
    overfitting_onset,
    bound_violated,
};

/// In ascending order of weight: of several alarms the heaviest action counts.
enum class AlarmAction : std::uint8_t { none, warn, checkpoint, stop };

/// What a look at the run's values brought.
struct AlarmVerdict {
    AlarmAction action = AlarmAction::none;
    std::vector<AlarmRecord> raised;
    std::vector<std::string> cleared;  ///< in words
    std::string stop_reason;           ///< of the first alarm with action stop
};

/// Remembers what is raised, by kind and layer. Fed with values that all ranks agree on it says the same on
/// every rank, and after a resumption what it would have said without.
class AlarmBoard {
  public:
    struct Observation {
        AlarmKind kind;
        double value = 0;
        std::optional<i64> layer, expert;
        std::function<std::string()> what;  ///< in words; only called when the alarm is raised
    };

    explicit AlarmBoard(const AlarmsConfig& config) : config_(config) {}

    /// The settings of a kind; null where it is off.
    [[nodiscard]] const AlarmConfig* settings(AlarmKind kind) const;
    void observe(i64 step, const Observation& observation, AlarmVerdict& verdict);
    /// Kinds that are raised now for a layer, or for the whole run.
    [[nodiscard]] std::vector<std::string> raised(std::optional<i64> layer) const;

    /// For a checkpoint: what is raised or about to be.
    [[nodiscard]] std::map<std::string, std::vector<double>> observers() const;
    /// To be called where the run begins or goes on. An alarm that is raised and stops a run now is not taken
    /// for raised: the next value that is still alarming stops the run again.
    void begin(const std::map<std::string, std::vector<double>>& observers);

  private:
    using Place = std::pair<AlarmKind, std::optional<i64>>;
    AlarmsConfig config_;
    std::map<Place, AlarmState> states_;
};

}  // namespace moesaic
