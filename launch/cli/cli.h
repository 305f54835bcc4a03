// The command line's tree: one file per family of subcommands, each adding its own to the application.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace moesaic {

/// What the command line asked for; set by the callback of the subcommand that was parsed, and run after
/// MPI's own arguments and all mistakes are dealt with. Returns the exit code.
using Selected = std::function<int()>;

void add_train_commands(CLI::App& app, Selected& selected);     ///< train, verify
void add_evaluate_commands(CLI::App& app, Selected& selected);  ///< eval, generate
void add_data_commands(CLI::App& app, Selected& selected);      ///< data dump, prepare, inspect
void add_convert_commands(CLI::App& app, Selected& selected);   ///< convert import, export, ...
void add_bound_command(CLI::App& app, Selected& selected);      ///< bound
void add_bench_commands(CLI::App& app, Selected& selected);     ///< bench layer
void add_report_command(CLI::App& app, Selected& selected);     ///< report
void add_study_command(CLI::App& app, Selected& selected);      ///< study
void add_doctor_commands(CLI::App& app, Selected& selected);    ///< doctor
void add_plan_command(CLI::App& app, Selected& selected);       ///< plan

/// `--set KEY=VALUE`, repeatable.
void add_overrides(CLI::App* command, std::vector<std::string>& overrides);
/// `--ranks-as-threads N`.
void add_ranks_as_threads(CLI::App* command, int& ranks);

/// Whether this process speaks for the job before MPI is up: the launcher's rank, 0 without one.
[[nodiscard]] bool speaks_for_the_job();
/// Exit code 2, with `text` printed by one process.
[[nodiscard]] int user_mistake(const std::string& text);

}  // namespace moesaic
