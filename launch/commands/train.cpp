// moesaic train: from a configuration to a run folder.
#include <fmt/ranges.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "launch/agreement.h"
#include "launch/check_report.h"
#include "launch/cli/cli.h"
#include "launch/commands/commands.h"
#include "launch/faults/fault_injector.h"
#include "launch/folder_lock.h"
#include "launch/ranks.h"
#include "launch/together.h"
#include "launch/trainer.h"
#include "runtime/base/log.h"
#include "runtime/checkpoint/checkpoint_folder.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;

bool lies_in(const std::string& path, const std::string& folder) {
    std::error_code error;
    const fs::path inner = fs::weakly_canonical(path, error), outer = fs::weakly_canonical(folder, error);
    return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first == outer.end();
}

/// Collective over `world`. The run folder for this job alone, held by rank 0. Before anything is read there:
/// whoever waited for another job goes on from the last checkpoint that it wrote.
std::unique_ptr<FolderLock> lock_folder(const TrainOptions& options, Communicator& world,
                                        const std::string& run_folder, double timeout_seconds) {
    if (!options.resume.empty() && options.resume != "auto") (void)resolve_checkpoint(options.resume);
    std::unique_ptr<FolderLock> lock;
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("run folder");
    together(world, *stream, [&] {
        if (world.rank() != 0) return;
        // A job that was requeued or started again may come before the last one's processes are gone, or
        // before a file server has noticed that their host is. The other ranks wait meanwhile.
        using std::chrono::milliseconds;
        const milliseconds most(static_cast<i64>(500 * std::min(timeout_seconds, 1e6)));
        const milliseconds here(options.resume.empty() ? 2000 : 10000);
        const milliseconds elsewhere(options.resume.empty() ? 2000 : 120000);
        lock = std::make_unique<FolderLock>(
            run_folder, "another run", FolderLock::Patience{std::min(here, most), std::min(elsewhere, most)});
    });
    return lock;
}

/// Collective over `world`. What --resume means for this run.
TrainerOptions plan_resume(const TrainOptions& options, Communicator& world, const std::string& run_folder) {
    TrainerOptions plan;
    plan.run_folder = run_folder;
    if (options.resume.empty()) return plan;
    if (options.resume == "auto") {
        plan.resume_from = newest_sound_checkpoint(world, run_folder);
        plan.verified = true;
    } else {
        plan.resume_from = resolve_checkpoint(options.resume);
    }
    plan.resume_in_place = !plan.resume_from.empty() && lies_in(plan.resume_from, run_folder);
    return plan;
}

/// What was ordered for steps that the run does not do. Where the checkpoint was not the user's choice, as in
/// a job that was requeued, that is no mistake.
void check_ordered_steps(const TrainOptions& options, const TrainerOptions& plan, i64 last, int rank) {
    const bool resumed = !plan.resume_from.empty();
    const i64 done = resumed ? read_manifest(plan.resume_from).step : 0;
    std::vector<std::string> mistakes;
    if (options.trace_step > last)
        mistakes.push_back(
            fmt::format("--trace-step {}: the run ends with step {}; give a step from {} to that",
                        options.trace_step, last, done + 1));
    if (options.trace_step > 0 && options.trace_step <= done)
        mistakes.push_back(
            fmt::format("--trace-step {}: the run goes on after step {}; give a step from {} to {}",
                        options.trace_step, done, done + 1, last));
    if (resumed && !options.inject.empty()) {
        for (const Fault& fault : parse_faults(options.inject)) {
            if (fault.step && *fault.step <= done && (done > 0 || plan.resume_in_place))
                mistakes.push_back(
                    fmt::format("--inject: {}: the run goes on after step {}; give a later step "
                                "than {}",
                                kind_of(fault.type).name, done, *fault.step));
        }
    }
    if (mistakes.empty()) return;
    const std::string text = fmt::format("{}", fmt::join(mistakes, "\n"));
    if (options.resume != "auto" || options.trace_step > last) throw UserError(text);
    if (rank == 0) log_warn("{}", text);
}

/// Collective over `world`. The exchange of a run, or what `auto` would take, on a mesh that is only made for
/// that; throws UserError where the exchange does not fit the nodes.
ExchangeChoice choose_exchange_of(const RunSetup& run, Communicator& world, int expert_parallel) {
    if (!run.spec.routes_rows()) return {run.spec.exchange, {}};
    const int simulated = static_cast<int>(run.config.parallel.ranks_per_node.value_or(0));
    Mesh mesh(world,
              {.expert = expert_parallel,
               .expert_tensor = static_cast<int>(run.config.parallel.expert_tensor),
               .ranks_per_node = simulated},
              static_cast<int>(run.spec.experts));
    const DType dtype = precision_of(run.config);
    const ExchangeChoice choice = resolve_exchange(
        run.spec, mesh, dtype, resolve_threads(run.config.cpu.threads, world.topology().ranks_per_node));
    (void)make_exchange(mesh, exchange_sizes(run.spec, mesh, dtype), choice.settings);  // or says why not
    return choice;
}

/// Collective over `world`. After a Trainer that has to go back.
TrainerOptions plan_return(const TrainerOptions& last, const Trainer& trainer, Communicator& world) {
    TrainerOptions plan = last;
    const std::string newest = newest_sound_checkpoint(world, plan.run_folder);
    if (!newest.empty()) plan.resume_from = newest;  // else where the run came from
    plan.verified = !newest.empty();
    plan.resume_in_place = lies_in(plan.resume_from, plan.run_folder);
    plan.alarm = trainer.alarm();
    plan.returns = trainer.returns();
    plan.looks = trainer.looks();
    return plan;
}

/// Collective over `world`.
int train_with_returns(const RunSetup& run, Communicator& world, TrainerOptions plan) {
    for (;;) {
        auto trainer = std::make_optional<Trainer>(run, world, plan);
        if (const std::optional<int> code = trainer->run()) return *code;
        plan = plan_return(plan, *trainer, world);
    }
}

/// Collective over `world`.
void check(RunSetup& run, Communicator& world, int expert_parallel, int ranks_in_process) {
    const Topology topology = world.topology();
    CheckedLayout layout;
    layout.world = world.size();
    layout.expert_parallel = expert_parallel;
    layout.nodes = topology.nodes;
    layout.ranks_per_node = topology.ranks_per_node;
    if (const auto simulated = run.config.parallel.ranks_per_node) {
        layout.ranks_per_node = static_cast<int>(*simulated);
        layout.nodes = (world.size() + layout.ranks_per_node - 1) / layout.ranks_per_node;
        layout.simulated_nodes = true;
    }
    layout.ranks_in_process = ranks_in_process;
    layout.exchange = choose_exchange_of(run, world, expert_parallel);
    run.spec.exchange = layout.exchange.settings;
    if (world.rank() == 0) print_check_report(run, layout);
}

/// This rank's part of the faults that were ordered; none where there are none.
std::optional<FaultInjector> injector(const TrainOptions& options, const RunSetup& run, int world, int rank,
                                      int expert_parallel) {
    if (options.inject.empty()) return {};
    std::vector<Fault> faults = parse_faults(options.inject);
    check_faults(faults, {run.config, run.spec, world, expert_parallel, options.ranks_as_threads > 0});
    return FaultInjector(std::move(faults), rank);
}

int train_on_rank(const TrainOptions& options, Communicator& world) {
    RunSetup run = load_run(options.config, options.overrides);
    if (!options.out.empty()) run.config.run.out = options.out;
    world.set_timeout_seconds(run.config.parallel.timeout_seconds);
    const Topology topology = world.topology();
    const int expert_parallel =
        resolve_expert_parallel(run.config, run.spec, world.size(), topology.ranks_per_node);
    std::optional<FaultInjector> faults = injector(options, run, world.size(), world.rank(), expert_parallel);
    if (options.check) {
        check(run, world, expert_parallel, std::max(1, options.ranks_as_threads));
        return 0;
    }
    check_agreement(world, "the version", fmt::format("{} {}", kVersion, kCommit));
    check_agreement(world, "the configuration", to_yaml(run.config));
    check_agreement(world, "the data", data_fingerprint(run));
    const std::string run_folder = run.config.run.out + "/" + run.config.run.name;
    const auto lock = lock_folder(options, world, run_folder, run.config.parallel.timeout_seconds);
    TrainerOptions plan = plan_resume(options, world, run_folder);
    if (!plan.resume_from.empty()) {
        check_tokenizer(run, plan.resume_from);
        check_model(run, plan.resume_from);
    }
    plan.trace_step = options.trace_step;
    check_ordered_steps(options, plan, run.config.train.steps, world.rank());
    plan.faults = faults ? &*faults : nullptr;
    return train_with_returns(run, world, plan);
}

}  // namespace

int train_command(const TrainOptions& options) {
    if (options.inject == "help") {
        if (speaks_for_the_job()) std::fputs(faults_text().c_str(), stdout);
        return 0;
    }
    install_stop_signals();
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return train_on_rank(options, world); });
}

}  // namespace moesaic
