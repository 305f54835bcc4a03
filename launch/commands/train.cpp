// moesaic train: from a configuration to a run folder.
#include <filesystem>

#include "launch/agreement.h"
#include "launch/check_report.h"
#include "launch/commands/commands.h"
#include "launch/ranks.h"
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

/// What --resume means for this run.
TrainerOptions plan_resume(const TrainOptions& options, const std::string& run_folder) {
    TrainerOptions plan;
    plan.run_folder = run_folder;
    if (options.resume.empty()) return plan;
    if (options.resume == "auto") {
        plan.resume_from = find_latest(run_folder).value_or("");
    } else {
        plan.resume_from = resolve_checkpoint(options.resume);
    }
    plan.resume_in_place = !plan.resume_from.empty() && lies_in(plan.resume_from, run_folder);
    return plan;
}

int train_on_rank(const TrainOptions& options, Communicator& world) {
    RunSetup run = load_run(options.config, options.overrides);
    if (!options.out.empty()) run.config.run.out = options.out;
    world.set_timeout_seconds(run.config.parallel.timeout_seconds);
    const Topology topology = world.topology();
    const int expert_parallel =
        resolve_expert_parallel(run.config, run.spec, world.size(), topology.ranks_per_node);
    if (options.check) {
        if (world.rank() == 0) {
            print_check_report(run, world.size(), expert_parallel, topology,
                               std::max(1, options.ranks_as_threads));
        }
        return 0;
    }
    check_agreement(world, "the version", fmt::format("{} {}", kVersion, kCommit));
    check_agreement(world, "the configuration", to_yaml(run.config));
    check_agreement(world, "the data", data_fingerprint(run));
    const std::string run_folder = run.config.run.out + "/" + run.config.run.name;
    const TrainerOptions plan = plan_resume(options, run_folder);
    if (!plan.resume_from.empty()) check_tokenizer(run, plan.resume_from);
    Trainer trainer(run, world, plan);
    return trainer.run();
}

}  // namespace

int train_command(const TrainOptions& options) {
    install_stop_signals();
    return run_on_ranks(options.ranks_as_threads,
                        [&](Communicator& world) { return train_on_rank(options, world); });
}

}  // namespace moesaic
