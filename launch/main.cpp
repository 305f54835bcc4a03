// The moesaic binary: reads the command line, runs one subcommand, turns failures into the contract's exit
// codes.
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>

#include "launch/cli/cli.h"
#include "runtime/base/build_info.h"
#include "runtime/base/error.h"
#include "runtime/config/diagnostics.h"

namespace {

using namespace moesaic;

/// Empty, or what to say about a first argument that is no subcommand.
std::string unknown_subcommand(const CLI::App& app, const std::string& argument) {
    std::vector<std::string> names;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
        names.push_back(command->get_name());
    if (argument.starts_with("-") || std::find(names.begin(), names.end(), argument) != names.end())
        return "";
    const std::string near = nearest_name(argument, names);
    return fmt::format("moesaic: '{}' is no subcommand; {}one of: {}", argument,
                       near.empty() ? "" : fmt::format("did you mean '{}'? ", near), fmt::join(names, ", "));
}

/// What could not be parsed: the words that nothing expects, in the order typed, else what `error` says; and
/// where help is.
std::string mistake_of(const CLI::App& app, const CLI::ParseError& error) {
    const CLI::App* command = &app;
    std::string path;  // "eval " or "data dump ": the subcommands that were recognised
    while (!command->get_subcommands().empty()) {
        command = command->get_subcommands().front();
        path += command->get_name() + " ";
    }
    const std::vector<std::string> extras = app.remaining(true);
    const bool of_extras = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr ||
                           dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
    if (!of_extras || extras.empty())
        return fmt::format("moesaic: {}; see moesaic {}--help", error.what(), path);
    std::vector<std::string> names;
    for (const CLI::Option* option : command->get_options())
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    std::string near;
    for (const std::string& word : extras)
        if (near.empty() && word.starts_with("--"))
            near = nearest_name(word.substr(0, word.find('=')), names);
    return fmt::format("moesaic: not expected: {}; {}see moesaic {}--help", fmt::join(extras, " "),
                       near.empty() ? "" : fmt::format("did you mean '{}'? ", near), path);
}

int run(int argc, char** argv) {
    CLI::App app{"Moesaic: expert-parallel training of sparse mixture-of-experts models"};
    app.set_version_flag("--version", fmt::format("moesaic {} ({})", kVersion, kCommit));
    app.set_help_all_flag("--help-all", "Print the options of all subcommands too, and exit");
    app.require_subcommand(1);
    Selected selected;
    add_train_commands(app, selected);
    add_evaluate_commands(app, selected);
    add_data_commands(app, selected);
    add_convert_commands(app, selected);
    add_bound_command(app, selected);
    add_bench_commands(app, selected);
    add_study_command(app, selected);
    add_report_command(app, selected);
    add_doctor_commands(app, selected);
    add_plan_command(app, selected);
    if (argc > 1) {
        const std::string unknown = unknown_subcommand(app, argv[1]);
        if (!unknown.empty()) return user_mistake(unknown);
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return speaks_for_the_job() ? app.exit(error) : 0;
        return user_mistake(mistake_of(app, error));
    }
    return selected();
}

}  // namespace

int main(int argc, char** argv) {
    // A reader that goes away and a file that may not grow become errors with a text, not a death without
    // one.
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN);
    try {
        return run(argc, argv);
    } catch (const moesaic::UserError& error) {
        return user_mistake(error.what());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "moesaic: error: %s\n", error.what());
        return 1;
    }
}
