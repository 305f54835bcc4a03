// The command line of `data`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

namespace {

void add_dump(CLI::App& data, Selected& selected) {
    const auto options = std::make_shared<DataDumpOptions>();
    CLI::App* dump = data.add_subcommand("dump", "Write the exact global batches of steps 1...N as .npy");
    dump->add_option("CONFIG", options->config, "Configuration (YAML)")->required();
    add_overrides(dump, options->overrides);
    dump->add_option("--steps", options->steps, "Number of steps N")->check(CLI::Range(1, 1000000000));
    dump->add_option("-o,--output", options->file, "File to write")->required()->type_name("FILE.npy");
    dump->callback([=, &selected] { selected = [=] { return data_dump_command(*options); }; });
}

}  // namespace

void add_data_commands(CLI::App& app, Selected& selected) {
    CLI::App* data = app.add_subcommand("data", "Data in and out");
    data->require_subcommand(1);
    add_dump(*data, selected);
    for (const char* name : {"data prepare", "data inspect"}) add_later_command(*data, name, "", selected);
}

}  // namespace moesaic
