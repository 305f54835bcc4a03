// The command line of `report`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

void add_report_command(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<ReportOptions>();
    CLI::App* report = app.add_subcommand("report", "One self-contained HTML file with figures and tables");
    report->add_option("RUN", options->folder, "Folder of a run or a study, e.g. runs/quad")->required();
    report->add_option("-o,--out", options->out, "The file to write, instead of RUN/report.html")
        ->type_name("FILE");
    CLI::Option* const figures =
        report
            ->add_option("--figures", options->figures,
                         "Write every figure into a file of this folder; the page as well only with -o")
            ->type_name("DIR");
    report->add_option("--format", options->format, "Of --figures: svg, png or pdf")
        ->type_name("FORMAT")
        ->needs(figures);
    report->callback(
        [=, &selected] { selected = [=] { return speaks_for_the_job() ? report_command(*options) : 0; }; });
}

}  // namespace moesaic
