// The command line of `bound`: one option per input of the bound table.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"
#include "runtime/metrics/bounds/bound_inputs.h"

namespace moesaic {

void add_bound_command(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<BoundOptions>();
    CLI::App* bound = app.add_subcommand(
        "bound", "Generalization bounds of a run, measured, or from numbers; lists of those make a table");
    bound->add_option("RUN", options->run,
                      "Run folder: the bounds of its newest evaluation, instead of numbers");
    // Values stay text here: all mistakes are reported at once, with those between options.
    for (const BoundInputField& field : bound_input_fields()) {
        const std::string name = bound_option(field.name);
        const bool list = field.list || is_grid_input(field.name);
        bound
            ->add_option_function<std::vector<std::string>>(
                name,
                [options, name](const auto& texts) { options->values[name] = texts.empty() ? "" : texts[0]; },
                std::string(field.help))
            ->type_name(list ? "N,..." : "N")
            ->expected(0, 1);
    }
    bound->add_option("--gate", options->gate,
                      "The model's gates: uniform, rank, softmax, softmax-all, frozen");
    bound->add_option("--bounds", options->bounds, "Only these, e.g. published,corrected_softmax")
        ->type_name("NAME,...");
    bound->add_flag("--no-router-bias", options->no_router_bias, "The linear router has no biases");
    bound->add_flag("--measured", options->measured, "The radius was measured on the sample");
    bound->add_flag("--two-sided", options->two_sided, "Bound |gap| instead of the gap");
    bound->add_flag("--list", options->list, "List all bounds with what they need, and stop");
    bound->add_flag("--json", options->json, "Print one JSON object; one a line for a table");
    bound->add_flag("--pac-bayes", options->pac_bayes,
                    "Of RUN: PAC-Bayes from a snapshot, measured now with noisy weights on the run's data");
    bound
        ->add_option(
            "--prior", options->prior,
            "With --pac-bayes: checkpoint to measure from; else of the run's, within 0.7 of an epoch")
        ->type_name("CHECKPOINT");
    bound->add_option("--draws", options->draws, "With --pac-bayes: draws of the weights")
        ->check(CLI::Range(2, 1000000))
        ->capture_default_str();
    add_ranks_as_threads(bound, options->ranks_as_threads);
    bound->allow_extras();
    bound->callback([=, &selected] {
        options->unknown = bound->remaining();
        options->print = speaks_for_the_job();
        selected = [=] { return bound_command(*options); };
    });
}

}  // namespace moesaic
