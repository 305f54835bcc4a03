// The command line of `plan`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

void add_plan_command(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<PlanCommandOptions>();
    CLI::App* plan = app.add_subcommand(
        "plan", "Memory, traffic and step time of every layout on a cluster, before there is one");
    plan->add_option("CONFIG", options->config, "Configuration (YAML)")->required();
    plan->add_option("--cluster", options->cluster, "Nodes, ranks, device and links (YAML)")
        ->required()
        ->type_name("CLUSTER.yaml");
    add_overrides(plan, options->overrides);
    plan->add_option("--ranks", options->ranks, "Plan for these numbers of ranks only, e.g. 8,64")
        ->delimiter(',')
        ->check(CLI::Range(1, 16384));
    plan->add_option("--traffic", options->traffic,
                     "How tokens choose experts: uniform, zipf:1.0, hot_expert:0.5, ... (moesaic bench "
                     "dispatch --help)");
    plan->add_option("--rows", options->rows, "Layouts to show, the fastest that fit")
        ->check(CLI::Range(1, 100000));
    plan->add_flag("--json", options->json, "Print one JSON object with all layouts");
    plan->callback([=, &selected] { selected = [=] { return plan_command(*options); }; });
}

}  // namespace moesaic
