// The command line of `doctor`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

void add_doctor_commands(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<DoctorCommandOptions>();
    CLI::App* doctor =
        app.add_subcommand("doctor", "What this machine and this MPI allocation offer, and what is missing");
    doctor->add_flag("--json", options->json, "Print one JSON object");
    doctor->add_flag("--quick", options->quick, "Look, but measure nothing");
    doctor->add_option("--out", options->out, "Folder that runs will be written to")->type_name("DIR");
    add_ranks_as_threads(doctor, options->ranks_as_threads);
    doctor->callback([=, &selected] { selected = [=] { return doctor_command(*options); }; });
}

}  // namespace moesaic
