// The training loop: steps, evaluations, checkpoints, records, and stopping when asked.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "launch/checkpointer.h"
#include "launch/flight_watch.h"
#include "launch/generalization.h"
#include "launch/routing_probe.h"
#include "launch/run_setup.h"
#include "launch/run_watch.h"
#include "launch/slowest_rank.h"
#include "launch/step_policy.h"
#include "launch/training_step.h"
#include "runtime/metrics/sink.h"

namespace moesaic {

struct TrainerOptions {
    std::string run_folder;
    std::string resume_from;           ///< checkpoint folder; empty: a fresh run
    bool resume_in_place = false;      ///< the checkpoint belongs to run_folder: its later records are cut
    bool verified = false;             ///< the checkpoint is known to be sound
    std::optional<AlarmRecord> alarm;  ///< why an earlier Trainer of this process went back to it
    Returns returns;
    i64 looks = 0;  ///< Generalization::looks of that one; 0: there was none
    FaultInjector* faults = nullptr;  ///< outlives the trainer
    i64 trace_step = 0;               ///< whose timeline is written; 0: none
};

class Trainer {
  public:
    /// Collective over `world`.
    Trainer(const RunSetup& run, Communicator& world, const TrainerOptions& options);

    /// Collective over the world. Trains to the last step and returns the exit code: 0, or after a checkpoint
    /// 75 because a signal asked for it, 1 because an alarm with action `stop` was raised: not 75, with which
    /// a scheduler would start the run again. Empty: the run has to go back to its newest checkpoint with a
    /// new Trainer, whose options get alarm(), returns() and looks().
    std::optional<int> run();
    [[nodiscard]] const AlarmRecord& alarm() const { return alarm_; }
    [[nodiscard]] const Returns& returns() const { return policy_.returns(); }
    [[nodiscard]] i64 looks() const { return generalization_.looks(); }

  private:
    void begin();
    std::optional<int> train();
    /// Collective over the world. One step with its record, where one is due.
    StepResult step(i64 step);
    /// Collective over the world. No update; says why.
    void leave_out(i64 step, const StepJudgement& judgement);
    /// `taken`: the routers' numbers are of this step.
    void record_step(i64 step, const StepResult& result, bool taken);
    /// Collective over the world. Since the last record, of each step.
    [[nodiscard]] std::optional<SlowestRank> slowest_rank();
    /// Collective over the world.
    void evaluate(i64 step);
    /// Writes what was raised and cleared; the heaviest action of the step counts.
    void heed(const AlarmVerdict& verdict);
    int stop_by_alarm(i64 step);
    /// Collective over the world. Begins to write it, once the one before is written.
    void checkpoint(i64 step);
    /// Collective over the world. Waits for what is being written; an Error where that has failed.
    void complete_checkpoint();
    void report(const CheckpointOutcome& outcome);
    int finish(i64 step, const char* status, int code);
    [[nodiscard]] bool due(i64 step, i64 every) const;

    const RunSetup& run_;
    const Config& config_;
    TrainerOptions options_;
    RankRuntime runtime_;
    std::optional<FlightWatch> flights_;
    TrainingStep training_;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> log_file_{nullptr, &std::fclose};
    SinkGroup sinks_;  // empty but on rank 0; writes to log_file_
    Generalization generalization_;
    RunWatch watch_;
    RoutingProbe routing_probe_;
    StepPolicy policy_;
    Checkpointer checkpointer_;
    bool goes_back_ = false;
    AlarmRecord alarm_;                       // of the step that was not taken
    AlarmAction action_ = AlarmAction::none;  // of the current step's alarms
    std::string stop_reason_;
    TrainingPosition position_;
    std::chrono::steady_clock::time_point start_;
    double peak_flops_ = 0;  // of all ranks
    struct SinceRecord {
        double seconds = 0, exchange_seconds = 0, collective_seconds = 0;
        i64 exchange_bytes = 0, steps = 0;
    } since_record_;  // sums over the steps since the last record
    double evaluation_seconds_ = 0;
    std::optional<CheckpointOutcome> last_failed_;   // of the latest checkpoint, where it has
    i64 begin_step_ = 0;                             // after which this Trainer's first step comes
    i64 checkpoint_step_ = -1, complete_step_ = -1;  // of the last that was begun, and of the last complete
};

/// SIGUSR1 and SIGTERM ask for a checkpoint and exit code 75 instead of ending the process.
void install_stop_signals();

/// Floating-point operations of forward and backward per token: 6 per active matrix weight, and causal
/// attention's products counted half (a query sees half of the keys on average).
[[nodiscard]] double model_flops_per_token(const ModelSpec& spec);
/// Weights of the model, and those that a token uses.
struct ParameterCounts {
    i64 total = 0, active = 0;
};
[[nodiscard]] ParameterCounts count_parameters(const ModelSpec& spec);

}  // namespace moesaic
