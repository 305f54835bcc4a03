// The command line of `study`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/cli/cli.h"
#include "launch/commands/commands.h"

namespace moesaic {

void add_study_command(CLI::App& app, Selected& selected) {
    const auto options = std::make_shared<StudyCommandOptions>();
    CLI::App* study =
        app.add_subcommand("study", "A grid of runs, resumable, one results table, verdicts on claims");
    study->add_option("STUDY", options->study, "Study (YAML), e.g. configs/studies/violation.yaml")
        ->required();
    study->add_option("--out", options->out, "Folder for study folders, instead of what the study says")
        ->type_name("DIR");
    study->add_flag("--resume", options->resume, "Keep the complete runs of an earlier start");
    study->add_flag("--smoke", options->smoke, "The small size that the study names, to see that it works");
    study->add_flag("--check", options->check, "Validate every point of the grid, and stop");
    study
        ->add_option("--predict", options->predict,
                     "Run nothing; foretell the gap there from the results of the study's grid (repeatable), "
                     "e.g. experts=64,top_k=2,samples=8000")
        ->type_name("PLACE")
        ->take_all()
        ->expected(1)
        ->allow_extra_args(false);
    study->callback([=, &selected] { selected = [=] { return study_command(*options); }; });
}

}  // namespace moesaic
