// moesaic bench step: whole training steps of a configuration, and where their time goes.
#include <array>
#include <cmath>
#include <cstdio>

#include "launch/agreement.h"
#include "launch/bench/bench_world.h"
#include "launch/bench/measurement.h"
#include "launch/bench/nccl_table.h"
#include "launch/bench/straggler.h"
#include "launch/ranks.h"
#include "launch/run_setup.h"
#include "launch/trainer.h"
#include "launch/training_step.h"
#include "runtime/base/build_info.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

/// Time of a rank is in exactly one of these.
enum StepPhase : std::size_t { kCompute, kExchange, kWaiting, kGradients, kUpdate, kGather, kStepPhases };
constexpr std::array<const char*, kStepPhases> kStepPhaseNames{
    "forward and backward", "exchange of rows", "waiting for ranks",
    "sums of gradients",    "update",           "gather of weights"};

struct StepReport {
    std::string config;
    int ranks = 1, expert_parallel = 1, threads = 1;
    std::string device, dtype, exchange;
    i64 tokens = 0;    ///< of the global batch
    RankTimes phases;  ///< [ranks, iterations * kStepPhases]
    double flops = 0;  ///< of a step
    double peak_gflops = 0;
    i64 exchange_bytes = 0;  ///< of all ranks and one step, without bytes to self
    i64 wrong = 0;           ///< steps whose loss or gradient is not finite
    double loss = 0;         ///< of the last step

    [[nodiscard]] i64 iterations() const { return phases.iterations() / static_cast<i64>(kStepPhases); }
    [[nodiscard]] double at(int rank, i64 iteration, std::size_t phase) const {
        return phases.at(rank, iteration * static_cast<i64>(kStepPhases) + static_cast<i64>(phase));
    }
    /// Whole steps, or what ranks compute themselves.
    [[nodiscard]] RankTimes sums(bool own_work_alone) const {
        RankTimes times{ranks, {}};
        for (int rank = 0; rank < ranks; ++rank) {
            for (i64 i = 0; i < iterations(); ++i) {
                double sum = 0;
                for (std::size_t phase = 0; phase < kStepPhases; ++phase)
                    sum += !own_work_alone || phase == kCompute || phase == kUpdate ? at(rank, i, phase) : 0;
                times.us.push_back(sum);
            }
        }
        return times;
    }
    /// Mean over ranks and iterations, and the largest mean of a rank.
    [[nodiscard]] std::pair<double, double> phase_us(std::size_t phase) const {
        double all = 0, largest = 0;
        for (int rank = 0; rank < ranks; ++rank) {
            double mean = 0;
            for (i64 i = 0; i < iterations(); ++i)
                mean += at(rank, i, phase) / static_cast<double>(iterations());
            all += mean / ranks;
            largest = std::max(largest, mean);
        }
        return {all, largest};
    }
    [[nodiscard]] double p50_us() const { return summary_of(sums(false).slowest()).p50; }
    [[nodiscard]] double tokens_per_s() const { return 1e6 * static_cast<double>(tokens) / p50_us(); }
    [[nodiscard]] double gflops() const { return 1e-3 * flops / p50_us(); }
    [[nodiscard]] double peak_fraction() const { return gflops() / peak_gflops; }
    [[nodiscard]] double exchange_fraction() const {
        double all = 0;
        for (std::size_t phase = 0; phase < kStepPhases; ++phase) all += phase_us(phase).first;
        return all > 0 ? (phase_us(kExchange).first + phase_us(kWaiting).first) / all : 0;
    }
};

/// One rank's training.
class StepBench {
  public:
    StepBench(const RunSetup& run, Communicator& world, int threads)
        : config_(run.config),
          runtime_(config_, run.spec, world, options_of(threads)),
          training_(runtime_, config_, *run.dataset) {}

    /// Collective over the world. Appends this rank's phases to `us`.
    void iterate(i64 step, std::vector<double>* us) {
        runtime_.mesh->world().barrier({"step"});
        const i64 rows = runtime_.mesh->world().ledger().of_rows().to_others();
        const double exchanging = runtime_.mesh->exchange_seconds();
        const double waiting_before = runtime_.mesh->exchange_waiting_seconds();
        const double sums = other_seconds();
        Stopwatch watch;
        result_ = training_.forward_backward(step);
        const double forward_backward = watch.lap(), sums_between = other_seconds();
        training_.update(step, result_.grad_norm);
        runtime_.compute->synchronize();
        const double update = watch.lap();
        if (!std::isfinite(result_.loss) || !std::isfinite(result_.grad_norm)) ++not_finite_;
        if (!us) return;
        const double exchange = runtime_.mesh->exchange_seconds() - exchanging;
        const double waiting = runtime_.mesh->exchange_waiting_seconds() - waiting_before;
        const double gradients = sums_between - sums;
        const double gather = other_seconds() - sums_between;
        exchange_bytes_ += runtime_.mesh->world().ledger().of_rows().to_others() - rows;
        for (const double seconds : {forward_backward - exchange - gradients, exchange - waiting, waiting,
                                     gradients, update - gather, gather})
            us->push_back(1e6 * seconds);
    }

    [[nodiscard]] RankRuntime& runtime() { return runtime_; }
    [[nodiscard]] i64 exchange_bytes() const { return exchange_bytes_; }
    [[nodiscard]] i64 not_finite() const { return not_finite_; }
    [[nodiscard]] double loss() const { return result_.loss; }

  private:
    static RuntimeOptions options_of(int threads) {
        RuntimeOptions options;
        options.threads = threads;
        return options;
    }
    /// In collectives of all groups but the expert-parallel ones.
    [[nodiscard]] double other_seconds() const {
        return runtime_.mesh->world().seconds() + runtime_.mesh->replicas().seconds();
    }

    const Config& config_;
    RankRuntime runtime_;
    TrainingStep training_;
    StepResult result_;
    i64 exchange_bytes_ = 0, not_finite_ = 0;
};

void print_table(const StepOptions& options, const StepReport& report) {
    const TimeSummary time = summary_of(report.sums(false).slowest());
    std::printf("# moesaic version %s (%s)\n# bench step: %s\n", kVersion, kCommit, report.config.c_str());
    std::printf(
        "# device: %s ranks: %d (expert parallel %d) threads: %d type: %s exchange: %s warmup iters: %ld "
        "iters: "
        "%ld\n#\n",
        report.device.c_str(), report.ranks, report.expert_parallel, report.threads, report.dtype.c_str(),
        report.exchange.c_str(), static_cast<long>(options.warmup), static_cast<long>(options.iterations));
    std::printf("#%9s %10s %10s %10s %10s %10s %9s %9s %7s %9s %12s %9s %6s\n", "tokens", "min", "p50", "p95",
                "p99", "tokens/s", "rate", "peak", "share", "exchange", "exchanged", "loss", "wrong");
    std::printf("#%9s %10s %10s %10s %10s %10s %9s %9s %7s %9s %12s %9s %6s\n", "", "(us)", "(us)", "(us)",
                "(us)", "", "(GF/s)", "(GF/s)", "(%)", "(%)", "(B)", "", "");
    std::printf(" %9ld %10.0f %10.0f %10.0f %10.0f %10.0f %9.1f %9.1f %7.1f %9.1f %12ld %9.4f %6ld\n#\n",
                static_cast<long>(report.tokens), time.min, time.p50, time.p95, time.p99,
                report.tokens_per_s(), report.gflops(), report.peak_gflops, 100 * report.peak_fraction(),
                100 * report.exchange_fraction(), static_cast<long>(report.exchange_bytes), report.loss,
                static_cast<long>(report.wrong));
    std::printf("# %-22s %12s %14s %8s\n", "phase", "mean (us)", "slowest rank", "share %");
    double all = 0;
    for (std::size_t phase = 0; phase < kStepPhases; ++phase) all += report.phase_us(phase).first;
    for (std::size_t phase = 0; phase < kStepPhases; ++phase) {
        const auto [mean, largest] = report.phase_us(phase);
        std::printf("# %-22s %12.0f %14.0f %8.1f\n", kStepPhaseNames[phase], mean, largest, 100 * mean / all);
    }
}

void print_json(const StepReport& report) {
    std::map<std::string, double> phases;
    for (std::size_t phase = 0; phase < kStepPhases; ++phase)
        phases[kStepPhaseNames[phase]] = report.phase_us(phase).first;
    JsonLine json;
    json.field("bench", "step").field("config", report.config).field("ranks", report.ranks);
    json.field("expert_parallel", report.expert_parallel).field("threads", report.threads);
    json.field("device", report.device);
    json.field("dtype", report.dtype).field("exchange", report.exchange).field("tokens", report.tokens);
    json.field("time_us", summary_of(report.sums(false).slowest()));
    json.field("tokens_per_s", report.tokens_per_s()).field("gflops", report.gflops());
    json.field("peak_gflops", report.peak_gflops).field("peak_fraction", report.peak_fraction());
    json.field("exchange_fraction", report.exchange_fraction());
    json.field("exchange_bytes", report.exchange_bytes).field("phases_us", phases);
    json.field("loss", report.loss).field("wrong", report.wrong);
    json.field("version", kVersion).field("commit", kCommit);
    std::printf("%s\n", json.text().c_str());
}

/// A sentence for everything that does not hold.
std::vector<std::string> failures_of_step(const StepOptions& options, const StepReport& report) {
    std::vector<std::string> failures;
    if (report.wrong > 0)
        failures.push_back(fmt::format("{} steps had a loss that is not finite", report.wrong));
    if (options.min_peak_fraction && report.peak_fraction() < *options.min_peak_fraction)
        failures.push_back(fmt::format("{:.3f} of the peak, less than --min-peak-fraction {:g}",
                                       report.peak_fraction(), *options.min_peak_fraction));
    if (options.min_tokens_per_s && report.tokens_per_s() < *options.min_tokens_per_s)
        failures.push_back(fmt::format("{:.4g} tokens/s, less than --min-tokens-per-s {:g}",
                                       report.tokens_per_s(), *options.min_tokens_per_s));
    const double p99 = summary_of(report.sums(false).slowest()).p99;
    if (options.max_p99_us && p99 > *options.max_p99_us)
        failures.push_back(
            fmt::format("p99 is {:.4g} us, more than --max-p99-us {:g}", p99, *options.max_p99_us));
    return failures;
}

/// Collective over `world`.
StepReport measure(const StepOptions& options, const RunSetup& run, Communicator& world) {
    StepReport report;
    report.config = options.config;
    report.ranks = world.size();
    report.dtype = run.config.train.precision;
    report.threads = resolve_threads(run.config.cpu.threads, world.topology().ranks_per_node);
    StepBench bench(run, world, report.threads);
    report.expert_parallel = bench.runtime().mesh->expert_parallel();
    report.exchange = bench.runtime().exchange_choice.settings.name;
    report.device = bench.runtime().backend->name();
    report.tokens = run.config.train.batch_sequences * run.config.task.data.seq_len;
    report.flops = model_flops_per_token(run.spec) * static_cast<double>(report.tokens);
    PeakSamples peak(*bench.runtime().backend, *bench.runtime().compute, report.threads,
                     bench.runtime().store.dtype(), report.flops / world.size());
    std::vector<double> phases;
    i64 step = 0;
    for (i64 i = 0; i < options.warmup; ++i) bench.iterate(++step, nullptr);
    for (i64 i = 0; i < options.iterations; ++i) {
        peak.take(world);
        bench.iterate(++step, &phases);
    }
    report.phases = gather_times(world, std::move(phases));
    report.peak_gflops = peak.sum_over(world);
    report.loss = bench.loss();
    report.wrong = bench.not_finite();
    i64 bytes = bench.exchange_bytes();
    world.all_reduce(*bench.runtime().exchange, view_of(&bytes, {1}), ReduceOp::sum, {"exchanged bytes"});
    bench.runtime().exchange->synchronize();
    report.exchange_bytes = bytes / options.iterations;
    return report;
}

/// Collective over `world`.
int run_rank(const StepOptions& options, Communicator& world) {
    std::vector<std::string> overrides = options.overrides;
    if (options.threads > 0) overrides.push_back(fmt::format("cpu.threads={}", options.threads));
    if (!options.dtype.empty()) {
        const DType dtype = bench_dtype(options);
        overrides.push_back(std::string("train.precision=") + (dtype == DType::f64    ? "fp64"
                                                               : dtype == DType::bf16 ? "bf16"
                                                                                      : "fp32"));
    }
    const RunSetup run = load_run(options.config, overrides);
    world.set_timeout_seconds(run.config.parallel.timeout_seconds);
    check_agreement(world, "the configuration", to_yaml(run.config));
    check_agreement(world, "the data", data_fingerprint(run));
    const StepReport report = measure(options, run, world);
    const BenchWorld facts = gather_bench_world(world, 0);
    const bool speaks = world.rank() == 0;
    if (speaks && options.json) print_json(report);
    if (speaks && !options.json) print_table(options, report);
    if (speaks && options.stragglers) {
        const StragglerReport stragglers = find_stragglers(report.sums(true), facts);
        if (options.json) {
            print_straggler_json(stragglers);
        } else {
            print_stragglers(stragglers);
        }
    }
    return judge("step", speaks, failures_of_step(options, report));
}

}  // namespace

int bench_step(const StepOptions& options) {
    OptionMistakes mistakes;
    if (!options.dtype.empty()) check_dtype(options, mistakes);
    mistakes.throw_if_any();
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return run_rank(options, world); });
}

}  // namespace moesaic
