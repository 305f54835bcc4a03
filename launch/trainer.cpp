#include "launch/trainer.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <fstream>

#include "comm/row_checks.h"
#include "launch/bench/measurement.h"
#include "launch/prototypes.h"
#include "launch/run_record.h"
#include "launch/step_trace.h"
#include "layers/moe_layer.h"
#include "runtime/base/log.h"
#include "runtime/base/run_context.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/metrics/truncate.h"

namespace moesaic {

namespace {

using Clock = std::chrono::steady_clock;

volatile std::sig_atomic_t stop_signal = 0;

extern "C" void on_stop_signal(int signal) {
    stop_signal = signal;
}

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

RuntimeOptions runtime_options(const Config& config, const Communicator& world) {
    RuntimeOptions options;
    const Topology topology = world.topology();
    options.threads = resolve_threads(config.cpu.threads, topology.ranks_per_node);
    return options;
}

constexpr double kSlowCheckpointSeconds = 1;  ///< that training waits for one, before it says so

/// Where rows travel otherwise than parallel.chunks and the promise of the same bits let a user expect.
void say_parts(i64 chunks, const ExchangeSizes& sizes) {
    if (sizes.parts < chunks)
        log_info("parallel.chunks: rows travel in {} of {} parts, as many as {}", sizes.parts, chunks,
                 sizes.own_rows_first ? "ranks share the experts" : "a rank has experts");
    if (sizes.own_rows_first)
        log_info(
            "parts begin with a rank's own rows: losses are the same bits on every layout only with "
            "train.determinism: elastic");
}

}  // namespace

void install_stop_signals() {
    std::signal(SIGUSR1, on_stop_signal);
    std::signal(SIGTERM, on_stop_signal);
}

Trainer::Trainer(const RunSetup& run, Communicator& world, const TrainerOptions& options)
    : run_(run),
      config_(run.config),
      options_(options),
      runtime_(config_, run.spec, world, runtime_options(config_, world)),
      training_(runtime_, config_, *run.dataset),
      generalization_(runtime_, run),
      watch_(config_.metrics.alarms, run.spec),
      routing_probe_(runtime_),
      policy_(config_.train, options_.returns),
      checkpointer_(runtime_, checkpoint_settings(options_.run_folder, config_, tokenizer_fingerprint(run)),
                    options_.faults),
      start_(Clock::now()) {
    if (!options_.resume_from.empty())
        position_ = load_checkpoint(runtime_, options_.resume_from, true, options_.verified);
    begin_step_ = position_.step;
    policy_.begin(position_.step, position_.observers);
    watch_.begin(position_.observers);
    training_.shift_batches(policy_.batch_shift());
    training_.inject(options_.faults);
    row_checks().checksums = config_.parallel.checksums;
    generalization_.begin(position_, !options_.resume_from.empty());
    generalization_.count_looks(options_.looks);
    generalization_.shift_batches(policy_.batch_shift());
    if (policy_.batch_shift() > 0)
        generalization_.give_up_fresh_data("batches were left out of the training");
    adopt_prototypes(runtime_, run_, options_.resume_from);
    begin();
    if (config_.metrics.record_routing != "none" && run.spec.experts > 0)
        training_.record_routing(config_.metrics.record_routing);
}

bool Trainer::due(i64 step, i64 every) const {
    return step % every == 0 || step == config_.train.steps;
}

void Trainer::begin() {
    Communicator& world = runtime_.mesh->world();
    // Of the device and the type that compute; a GPU's by a product of about a micro-batch's operations.
    const auto tokens = static_cast<double>(training_.micro_batches().size * run_.spec.seq_len);
    PeakSamples peak(*runtime_.backend, *runtime_.compute, runtime_options(config_, world).threads,
                     runtime_.store.dtype(), model_flops_per_token(run_.spec) * tokens);
    peak.take(world);
    peak_flops_ = 1e9 * peak.sum_over(world);
    if (world.rank() != 0) return;
    const bool resume = options_.resume_in_place;
    SinkOptions sink_options;
    sink_options.folder = options_.run_folder;
    sink_options.name = config_.run.name;
    sink_options.resume = resume;
    sink_options.first_step = position_.step + 1;
    sink_options.prometheus_listen =
        fmt::format("{}:{}", config_.metrics.prometheus.address, config_.metrics.prometheus.port);
    sink_options.steps = config_.train.steps;
    sink_options.row_name = run_.dataset->row_name();
    const auto add_sinks = [&](bool before_the_folder) {
        for (const std::string& name : config_.metrics.sinks)
            if ((name == "prometheus") == before_the_folder) sinks_.add(make_sink(name, sink_options));
    };
    add_sinks(true);  // a port that is taken, while nothing has happened yet
    // Only now, when a checkpoint to resume from has been read on all ranks, is an earlier run touched.
    const std::string moved = prepare_run_folder(options_.run_folder, resume);
    if (!moved.empty()) log_info("the earlier run in {} was moved to {}", options_.run_folder, moved);
    if (resume) {
        truncate_metrics_after(options_.run_folder, position_.step);
        // Checkpoints of later steps belong to what was just cut: `--resume auto` must not go on from them.
        const std::string folder = checkpoints_folder(options_.run_folder);
        if (has_manifest(folder + "/" + step_folder_name(position_.step)))
            write_latest(options_.run_folder, position_.step);
    }
    std::ofstream(options_.run_folder + "/config.yaml") << to_yaml(config_);
    log_to_file(options_.run_folder + "/log.rank0.txt");
    add_sinks(false);
    log_file_.reset(std::fopen((options_.run_folder + "/log.rank0.txt").c_str(), "a"));
    if (log_file_) {  // what the console shows is kept, whether anybody watches or not
        sink_options.console = log_file_.get();
        sinks_.add(make_sink("console", sink_options));
    }
    for (const std::string& warning : run_.dataset->warnings()) log_warn("{}", warning);
    const ExchangeSettings& exchange = runtime_.exchange_choice.settings;
    if (!runtime_.exchange_choice.measured.empty()) log_info("{}", runtime_.exchange_choice.text());
    if (exchange.wire && *exchange.wire != runtime_.store.dtype())
        log_info("rows travel as {}: losses are not the same bits on every layout", name_of(*exchange.wire));
    if (exchange.reduce_on_node && runtime_.mesh->grid().nodes > 1)
        log_info("choices are added up on their node: losses are not the same bits on every layout");
    if (run_.spec.routes_rows())
        say_parts(run_.spec.chunks, exchange_sizes(run_.spec, *runtime_.mesh, runtime_.store.dtype()));
    sinks_.write(run_record(runtime_, run_));
    if (options_.alarm) sinks_.write(*options_.alarm);
}

std::optional<int> Trainer::run() {
    flights_.emplace(runtime_.mesh->world(), options_.run_folder);
    try {
        return train();
    } catch (const UserError&) {
        throw;
    } catch (const AbortedError&) {
        throw;
    } catch (const std::exception&) {
        flights_->record_failure();
        throw;
    }
}

std::optional<int> Trainer::train() {
    if (!options_.resume_from.empty()) {
        log_info("resumed from {} at step {}", options_.resume_from, position_.step);
        // What it was read from is complete and stays as it is: imported weights may exist nowhere else.
        if (options_.resume_in_place) checkpoint_step_ = complete_step_ = position_.step;
    }
    // Looks are paid for: a run that is back at its own step 0 has had this one.
    if (begin_step_ == 0 && (!options_.resume_in_place || !position_.observers.contains("generalization")))
        evaluate(0);
    // Another run's is none to go back to, or to be started again from: it may be gone by then.
    checkpoint(begin_step_);
    complete_checkpoint();  // where nothing can be saved the run had better not begin
    if (action_ == AlarmAction::stop) return stop_by_alarm(begin_step_);
    i64 current = position_.step;
    while (current < config_.train.steps) {
        action_ = AlarmAction::none;
        const StepResult result = step(++current);
        if (goes_back_) return {};
        if (due(current, config_.train.eval_every)) evaluate(current);
        if (due(current, config_.train.checkpoint_every) || result.stop_requested ||
            action_ >= AlarmAction::checkpoint)
            checkpoint(current);
        if (action_ == AlarmAction::stop) return stop_by_alarm(current);
        if (result.stop_requested) return finish(current, "stopped", 75);
    }
    checkpoint(current);
    return finish(current, "done", 0);
}

StepResult Trainer::step(i64 step) {
    std::optional<StepTrace> trace;
    if (step == options_.trace_step) trace.emplace(runtime_, step);
    run_context().step = step;
    const auto start = Clock::now();
    const TrafficLedger& ledger = runtime_.mesh->world().ledger();
    const i64 bytes_before = ledger.of_rows().to_others();
    const double seconds_before = runtime_.mesh->exchange_seconds();
    const double collectives_before = runtime_.mesh->collective_seconds();
    training_.score_units(generalization_.scales_of_step(step), generalization_.unit_ranges());
    RankNote note;
    note.stop = stop_signal != 0 ? 1 : 0;
    checkpointer_.tell(note);
    const StepResult result = training_.forward_backward(step, note);
    if (const auto outcome = checkpointer_.hear(result.notes)) report(*outcome);
    // Every rank sees the same numbers.
    const StepJudgement judgement = policy_.judge(step, result.loss, result.grad_norm);
    if (std::isfinite(result.loss)) {
        generalization_.add_step(step, result);
    } else {
        generalization_.give_up_fresh_data(fmt::format("the loss of step {} was not finite", step));
    }
    const bool taken = judgement.verdict == StepVerdict::take;
    if (taken) {
        training_.update(step, result.grad_norm, policy_.skipped());
    } else {
        leave_out(step, judgement);
    }
    runtime_.compute->synchronize();
    position_.step = step;
    position_.tokens += config_.train.batch_sequences * run_.spec.seq_len;
    since_record_.seconds += seconds_since(start);
    since_record_.exchange_seconds += runtime_.mesh->exchange_seconds() - seconds_before;
    since_record_.collective_seconds += runtime_.mesh->collective_seconds() - collectives_before;
    since_record_.exchange_bytes += ledger.of_rows().to_others() - bytes_before;
    ++since_record_.steps;
    if (trace) {
        const std::string path = trace->write(options_.run_folder);
        if (runtime_.mesh->world().rank() == 0)
            log_info("timeline of step {}: {} (for ui.perfetto.dev)", step, path);
    }
    AlarmVerdict verdict;
    if (taken) verdict = watch_.after_step(step, result, runtime_.model.selection_biases());
    if (step == 1 || due(step, config_.train.log_every)) record_step(step, result, taken);
    if (taken && training_.moved()) sinks_.write(*training_.moved());
    heed(verdict);
    return result;
}

void Trainer::heed(const AlarmVerdict& verdict) {
    action_ = std::max(action_, verdict.action);
    if (stop_reason_.empty()) stop_reason_ = verdict.stop_reason;
    for (const std::string& text : verdict.cleared) log_info("{}", text);
    for (const AlarmRecord& record : verdict.raised) sinks_.write(record);
}

void Trainer::evaluate(i64 step) {
    const auto start = Clock::now();
    routing_probe_.begin();
    EvalRecord record = generalization_.evaluate(step, &routing_probe_);
    record.routing_changed = routing_probe_.finish();
    record_shifted(runtime_, run_, record);
    AlarmVerdict verdict = watch_.after_evaluation(step, record.heldout_loss, record.routing_changed);
    watch_.look_at_gap(record, verdict);
    evaluation_seconds_ += seconds_since(start);
    const double seconds = seconds_since(start_);
    record.evaluation_share = evaluation_seconds_ / seconds;
    record.generalization_share = (generalization_.extra_seconds() + training_.unit_seconds()) / seconds;
    sinks_.write(record);  // to none but on rank 0
    heed(verdict);
}

void Trainer::checkpoint(i64 step) {
    if (checkpoint_step_ == step) return;
    const auto start = Clock::now();
    if (const auto outcome = checkpointer_.finish()) {
        report(*outcome);
        const double waited = seconds_since(start);
        if (waited >= kSlowCheckpointSeconds && outcome->failed_rank < 0) {
            AlarmRecord alarm;
            alarm.step = step;
            alarm.kind = "checkpoint_slow";
            alarm.message = fmt::format(
                "the checkpoint of step {} took {:.1f} s, and training waited {:.1f} s of them before it "
                "could "
                "begin the next; raise train.checkpoint_every, or write to a faster disk",
                outcome->record.step, outcome->record.seconds, waited);
            alarm.value = waited;
            alarm.threshold = kSlowCheckpointSeconds;
            sinks_.write(alarm);
        }
    }
    sinks_.flush();
    position_.observers = generalization_.observers(step);
    position_.observers.merge(policy_.observers());
    position_.observers.merge(watch_.observers());
    std::optional<CheckpointOutcome> outcome = checkpointer_.begin(position_);
    checkpoint_step_ = step;
    if (!outcome && !config_.train.async_checkpoints) outcome = checkpointer_.finish();
    if (outcome) report(*outcome);
}

void Trainer::report(const CheckpointOutcome& outcome) {
    const CheckpointRecord& record = outcome.record;
    last_failed_ = outcome.failed_rank >= 0 ? std::optional(outcome) : std::nullopt;
    if (!last_failed_) {
        complete_step_ = record.step;
        sinks_.write(record);
        return;
    }
    if (record.step == begin_step_ || record.step == config_.train.steps)
        return;  // complete_checkpoint throws
    const int rank = runtime_.mesh->world().rank();
    // Rank 0 does not know why, and the others have no records.
    if (outcome.failed_rank == rank && rank != 0) log_warn("{}", outcome.why);
    AlarmRecord alarm;
    alarm.step = record.step;
    alarm.kind = "checkpoint_failed";
    alarm.rank = outcome.failed_rank;
    alarm.message = fmt::format(
        "rank {} could not write its part of the checkpoint of step {}{}; the newest "
        "complete one is of step {}; training goes on",
        outcome.failed_rank, record.step, outcome.why.empty() ? "" : " (" + outcome.why + ")",
        complete_step_);
    sinks_.write(alarm);
}

void Trainer::complete_checkpoint() {
    if (const auto outcome = checkpointer_.finish()) {
        if (outcome->failed_rank >= 0) {
            last_failed_ = outcome;  // told by the Error
        } else {
            report(*outcome);
        }
    }
    if (last_failed_ && last_failed_->record.step == checkpoint_step_)
        checkpointer_.throw_failure(*last_failed_);
}

int Trainer::stop_by_alarm(i64 step) {
    const int code = finish(step, "stopped by alarm", 1);
    if (runtime_.mesh->world().rank() == 0)
        log_message(LogLevel::error,
                    fmt::format("step {}, all ranks: stopped by {}; checkpoint: {}/{}", step, stop_reason_,
                                checkpoints_folder(options_.run_folder), step_folder_name(step)));
    return code;
}

int Trainer::finish(i64 step, const char* status, int code) {
    complete_checkpoint();
    sinks_.write(watch_.health(true));
    EndRecord record;
    record.step = step;
    record.status = status;
    record.seconds = seconds_since(start_);
    sinks_.write(record);
    sinks_.flush();
    return code;
}

}  // namespace moesaic
