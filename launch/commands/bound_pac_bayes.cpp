// moesaic bound RUN --pac-bayes: the second tier of the certificate, measured on a checkpoint.
#include <chrono>
#include <filesystem>

#include "launch/commands/commands.h"
#include "launch/commands/print_bounds.h"
#include "launch/pac_bayes_snapshot.h"
#include "launch/ranks.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/metrics/jsonl_sink.h"

namespace moesaic {

namespace {

BoundRecord record_of(const SnapshotMeasurement& measurement, double seconds) {
    BoundRecord record;
    record.step = measurement.step;
    record.prior_step = measurement.prior_step;
    record.bounds = measurement.certificate.bounds;
    record.meaning = explain_snapshot(measurement.certificate, measurement.options);
    record.seconds = seconds;
    return record;
}

/// The run's metrics go on with it; a checkpoint alone has none.
void keep(const BoundRecord& record, const std::string& checkpoint) {
    const std::filesystem::path metrics =
        std::filesystem::path(checkpoint).parent_path().parent_path() / "metrics.jsonl";
    if (std::filesystem::exists(metrics)) LineFile(metrics.string(), true).append(json_of(record));
}

void print(const BoundRecord& record, const std::string& trained, const std::string& prior, double delta) {
    fmt::print("{}, measured from {}\n", trained, prior);
    std::vector<NamedBound> bounds;
    for (const auto& [name, bound] : record.bounds) bounds.push_back({name, BoundKind::risk, bound});
    print_bound_values(bounds, delta);
    print_bound_assumptions(bounds);
    fmt::print("\n{}\n", record.meaning);
}

int measure_on_rank(const BoundOptions& options, Communicator& world) {
    const auto start = std::chrono::steady_clock::now();
    const std::string trained = resolve_checkpoint(options.run);
    // Weights as the optimizer keeps them, whatever they were rounded to in training, and whole experts:
    // noise is drawn by a tensor's elements. All training data: what a share of them left certifies.
    std::vector<std::string> overrides = any_layout();
    overrides.insert(overrides.end(), {"train.precision=fp32", "task.data.training_share=1"});
    const RunSetup run = set_up_run(checkpoint_config(trained, overrides));
    check_tokenizer(run, trained);
    const std::string prior =
        options.prior.empty() ? choose_prior(trained, run) : resolve_checkpoint(options.prior);
    world.set_timeout_seconds(run.config.parallel.timeout_seconds);
    RuntimeOptions runtime_options;
    runtime_options.threads = resolve_threads(run.config.cpu.threads, world.topology().ranks_per_node);
    RankRuntime runtime(run.config, run.spec, world, runtime_options);
    const SnapshotMeasurement measurement = measure_snapshot(runtime, run, prior, trained, options.draws);
    if (world.rank() != 0) return 0;
    const BoundRecord record = record_of(
        measurement, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    keep(record, trained);
    if (options.json)
        fmt::print("{}\n",
                   JsonLine().field("checkpoint", trained).field("prior", prior).fields_of(record).text());
    else
        print(record, trained, prior, measurement.options.delta);
    return 0;
}

}  // namespace

int bound_pac_bayes_command(const BoundOptions& options) {
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return measure_on_rank(options, world); });
}

}  // namespace moesaic
