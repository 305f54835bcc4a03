// Watches a run: how healthy its routers are, step by step, and whether something is alarming.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include "launch/alarm_board.h"
#include "launch/training_step.h"

namespace moesaic {

/// Lives on every rank and says the same on all: it is fed with numbers of the global batch alone. After a
/// resumption it says what it would have said without.
class RunWatch {
  public:
    RunWatch(const AlarmsConfig& alarms, const ModelSpec& spec);

    /// Once per step. `biases`: Model::selection_biases.
    [[nodiscard]] AlarmVerdict after_step(i64 step, const StepResult& result,
                                          const std::vector<std::vector<double>>& biases);
    /// Once per evaluation; `heldout_loss` is absent where no data are held out.
    [[nodiscard]] AlarmVerdict after_evaluation(i64 step, std::optional<double> heldout_loss,
                                                const std::vector<RoutingChange>& changes);

    /// Once per evaluation: does the held-out shard look leaked, does the gap open, does it exceed a bound?
    void look_at_gap(const EvalRecord& record, AlarmVerdict& verdict);

    [[nodiscard]] std::map<std::string, std::vector<double>> observers() const;
    /// To be called once, where the run begins or goes on from a checkpoint with these observers.
    void begin(const std::map<std::string, std::vector<double>>& observers);

    /// Of the latest step, one per layer with experts, with the alarms that are raised now.
    [[nodiscard]] std::vector<ExpertsRecord> layers() const;
    /// Largest load over mean of any layer in the latest step; 1 where there is no load.
    [[nodiscard]] double worst_max_over_mean() const;
    /// Share of all choices of the latest step that were dropped.
    [[nodiscard]] double dropped_fraction() const;
    /// The same numbers for people.
    [[nodiscard]] RouterHealthRecord health(bool last) const;

  private:
    void measure_layer(std::size_t index, i64 step, const StepResult& result,
                       const std::vector<double>& bias);
    void watch_layer(const ExpertsRecord& layer, AlarmVerdict& verdict);
    void watch_dead_experts(const ExpertsRecord& layer, AlarmVerdict& verdict);
    void watch_loss(i64 step, double loss, AlarmVerdict& verdict);
    void watch_bounds(const EvalRecord& record, AlarmVerdict& verdict);

    ModelSpec spec_;
    AlarmBoard board_;
    std::vector<ExpertsRecord> layers_;
    std::vector<double> changed_;  // by layer with experts
    std::deque<double> losses_;    // of the last steps
    struct Lowest {
        double loss = 0;
        i64 step = 0;
    };
    std::optional<Lowest> lowest_heldout_;
};

}  // namespace moesaic
