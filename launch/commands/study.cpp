// moesaic study: a grid of runs, one table, and a verdict on every claim.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "comm/mpi_environment.h"
#include "launch/commands/commands.h"
#include "launch/folder_lock.h"
#include "launch/run_setup.h"
#include "launch/study/claims.h"
#include "launch/study/gap_prediction.h"
#include "launch/study/study_runs.h"
#include "runtime/base/atomic_file.h"
#include "runtime/base/error.h"
#include "runtime/metrics/json_line.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;

void print_claims(const std::vector<ClaimResult>& results) {
    for (const ClaimResult& result : results)
        fmt::print("{:<15} {}: {}\n{:16}{}\n", name_of(result.verdict), result.name, result.statement, "",
                   result.finding);
}

/// The next sizes of every claim of kind predictor; what --predict says of others.
std::string foretold_records(const StudyConfig& study, const StudyTable& table) {
    std::string records;
    for (const StudyClaim& claim : study.claims) {
        if (claim.kind != "predictor") continue;
        const std::vector<GapCell> cells = gap_cells(claim, table);
        if (!enough_to_fit(cells)) continue;
        for (const GapCell& place : next_places(cells))
            records += JsonLine().fields_of(foretell(claim, cells, place)).text() + "\n";
    }
    return records;
}

/// Tables, verdicts and predictions below `folder`. Returns the verdicts.
std::vector<ClaimResult> write_results(const StudyConfig& study, const StudyTable& table,
                                       const std::string& folder) {
    write_file_atomically(folder + "/results.csv", csv_text(table));
    write_file_atomically(folder + "/results.jsonl", jsonl_text(table));
    write_file_atomically(folder + "/cells.csv",
                          csv_text(cell_table(table, columns_of(study.claims, table))));
    std::vector<ClaimResult> results;
    std::string claims;
    for (const StudyClaim& claim : study.claims) {
        results.push_back(judge(claim, table));
        claims += JsonLine().fields_of(results.back()).text() + "\n";
    }
    write_file_atomically(folder + "/claims.jsonl", claims);
    if (const std::string foretold = foretold_records(study, table); !foretold.empty())
        write_file_atomically(folder + "/predictions.jsonl", foretold);
    else
        fs::remove(folder + "/predictions.jsonl");  // of a grid that was larger
    return results;
}

int predict(const StudyConfig& study, const std::string& folder, const StudyCommandOptions& options) {
    const std::string results = folder + "/results.jsonl";
    if (!fs::exists(results))
        throw UserError(
            fmt::format("{}: no such file, and so nothing to predict from; run `moesaic study {}` "
                        "first, or say with --out where it ran",
                        results, options.study));
    fmt::print("{}", prediction_text(study, read_study_table(results), options.predict));
    return 0;
}

}  // namespace

int study_command(const StudyCommandOptions& options) {
    if (mpi_launch().size > 1)
        throw UserError(
            "moesaic study: it starts the ranks of its runs itself; start it without mpirun, and give "
            "`ranks: N` "
            "in the study");
    Diagnostics diagnostics;
    StudyConfig study = load_study(options.study, options.smoke, diagnostics);
    diagnostics.throw_if_any();
    if (!options.out.empty()) study.out = options.out;
    const std::string folder = study.out + "/" + study.name;
    check_claims(study, diagnostics);
    if (options.predict.empty()) check_points(study, diagnostics);
    diagnostics.throw_if_any();
    if (!options.predict.empty()) return predict(study, folder, options);
    if (options.check) {
        fmt::print("{}: {} points, {} seeds, {} claims{}\n", study.name, points_of(study).size(), study.seeds,
                   study.claims.size(), study.takes.empty() ? "" : "; takes " + study.takes);
        return 0;
    }
    // Whoever resumes after a kill may come before the killed study's runs have ended their step.
    const std::chrono::seconds patience(options.resume ? 10 : 0);
    const FolderLock lock(folder, "a study, or a run that one left behind,", {patience, patience});
    const std::string moved = prepare_run_folder(folder, options.resume);
    if (!moved.empty()) fmt::print("{} was there and is now {}\n", folder, moved);
    fs::create_directories(folder);
    const std::string program = fs::read_symlink("/proc/self/exe").string();
    const auto results_or_stop = run_study(study, folder, {program, options.resume, true});
    if (!results_or_stop) {
        fmt::print("stopped; `--resume` goes on with the runs that are not complete\n");
        return 75;
    }
    const StudyTable& table = *results_or_stop;
    print_claims(write_results(study, table, folder));
    const auto failed = std::ranges::count_if(
        table.rows, [](const StudyRow& row) { return row.contains("status") && row.at("status") != "done"; });
    fmt::print("{}/results.csv: {} runs{}\n", folder, table.rows.size(),
               failed > 0 ? fmt::format(", {} of them not done; `--resume` runs those again", failed) : "");
    return failed > 0 ? 1 : 0;
}

}  // namespace moesaic
