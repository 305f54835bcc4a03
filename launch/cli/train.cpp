// The command line of `train` and `verify`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

namespace {

/// Short for a key of the configuration; wins over --set.
void add_ranks_per_node(CLI::App* command, std::vector<std::string>& overrides) {
    command
        ->add_option_function<long>(
            "--ranks-per-node",
            [&overrides](long ranks) {
                overrides.push_back("parallel.ranks_per_node=" + std::to_string(ranks));
            },
            "Simulate nodes of so many consecutive ranks: parallel.ranks_per_node")
        ->type_name("N");
}

void add_train(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<TrainOptions>();
    CLI::App* train = app.add_subcommand("train", "Train a model; under mpirun or srun on many ranks");
    train->add_option("CONFIG", options->config, "Configuration (YAML)");
    add_overrides(train, options->overrides);
    train->add_option("--out", options->out, "Folder for run folders, instead of run.out")->type_name("DIR");
    train
        ->add_option("--resume", options->resume,
                     "Go on from a checkpoint, a run folder, or 'auto': this run's newest")
        ->type_name("DIR|auto");
    train
        ->add_option("--inject", options->inject,
                     "Faults on purpose, e.g. kill:rank=1,step=5; 'help' lists them")
        ->type_name("FAULTS");
    train->add_flag("--check", options->check,
                    "Validate everything, print layout, memory and traffic, and stop");
    train
        ->add_option(
            "--trace-step", options->trace_step,
            "Write the timeline of this step on all ranks: OUT/NAME/trace.stepN.json, for ui.perfetto.dev")
        ->type_name("N")
        ->check(CLI::Range(1L, 1000000000L));
    add_ranks_as_threads(train, options->ranks_as_threads);
    add_ranks_per_node(train, options->overrides);
    train->callback([=, &selected] {
        if (options->config.empty() && options->inject != "help") throw CLI::RequiredError("CONFIG");
        selected = [=] { return train_command(*options); };
    });
}

void add_verify(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<VerifyOptions>();
    CLI::App* verify =
        app.add_subcommand("verify", "Layout certificate: the same batch on several layouts, compared");
    verify->add_option("CONFIG", options->config, "Configuration (YAML)")->required();
    add_overrides(verify, options->overrides);
    verify->add_option("--layouts", options->layouts, "World sizes to compare, e.g. 1,2,4")->delimiter(',');
    verify->add_option("--steps", options->steps, "Steps to train; losses after the first are compared too")
        ->check(CLI::Range(1, 1000000000));
    add_ranks_per_node(verify, options->overrides);
    verify->add_flag("--json", options->json, "Print one JSON object");
    verify->callback([=, &selected] { selected = [=] { return verify_command(*options); }; });
}

}  // namespace

void add_train_commands(CLI::App& app, Selected& selected) {
    add_train(app, selected);
    add_verify(app, selected);
}

}  // namespace moesaic
