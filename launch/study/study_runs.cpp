#include "launch/study/study_runs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "launch/report/run_history.h"
#include "launch/study/run_pool.h"
#include "launch/study/simulations.h"
#include "runtime/base/error.h"
#include "runtime/base/json_depth.h"
#include "runtime/config/load.h"
#include "runtime/machine/programs.h"

namespace moesaic {

namespace {

namespace fs = std::filesystem;

constexpr const char* kRanks = "ranks";  // an axis that is no key of a configuration

struct PlannedRun {
    StudyPoint point;
    long seed = 1;
    long ranks = 1;
    std::string name, folder;
    std::vector<std::string> overrides;
};

std::vector<std::string> overrides_of(const StudyConfig& study, const StudyPoint& point, long seed) {
    std::vector<std::string> overrides = study.overrides;
    for (const auto& [key, value] : point)
        if (key != kRanks) overrides.push_back(key + "=" + value);
    overrides.push_back(fmt::format("run.seed={}", seed));
    for (const std::string& key : study.seed_keys) overrides.push_back(fmt::format("{}={}", key, seed));
    return overrides;
}

std::vector<PlannedRun> planned_runs(const StudyConfig& study, const std::string& folder) {
    std::vector<PlannedRun> runs;
    const std::vector<StudyPoint> points = points_of(study);
    for (std::size_t i = 0; i < points.size(); ++i) {
        for (long seed = study.first_seed; seed < study.first_seed + study.seeds; ++seed) {
            PlannedRun run{points[i], seed, study.ranks, fmt::format("cell-{:03}-seed-{}", i + 1, seed),
                           "",        {}};
            for (const auto& [key, value] : points[i])
                if (key == kRanks) run.ranks = std::max(1L, std::atol(value.c_str()));
            run.folder = fmt::format("{}/runs/{}", folder, run.name);
            run.overrides = overrides_of(study, points[i], seed);
            for (const std::string& own : {"run.name=" + run.name, fmt::format("run.out={}/runs", folder)})
                run.overrides.push_back(own);
            runs.push_back(std::move(run));
        }
    }
    return runs;
}

/// Keys and values that decide the numbers of a run: threads do not.
std::map<std::string, std::string> essence(const Config& config) {
    std::map<std::string, std::string> values = flatten(config);
    for (const char* key : {"cpu.threads", "run.out"}) values.erase(key);
    return values;
}

std::string whole_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Whether the folder holds that very run, trained to its end.
bool is_complete(const StudyConfig& study, const PlannedRun& run) {
    if (!fs::exists(run.folder + "/metrics.jsonl") || read_run(run.folder).status != "done") return false;
    const LoadedConfig had = parse_config(whole_file(run.folder + "/config.yaml"), run.folder);
    const LoadedConfig wanted = load_config(study.base, run.overrides);
    return had.diagnostics.empty() && essence(had.config) == essence(wanted.config);
}

struct Machine {
    long cores = 1, at_once = 1, threads = 1;
};

Machine share_out(const StudyConfig& study, const std::vector<PlannedRun>& runs) {
    Machine machine;
    machine.cores = std::max(1L, static_cast<long>(std::thread::hardware_concurrency()));
    long ranks = 1;
    for (const PlannedRun& run : runs) ranks = std::max(ranks, run.ranks);
    machine.at_once = study.jobs.value_or(std::max(1L, machine.cores / ranks));
    machine.threads = std::max(1L, machine.cores / (machine.at_once * ranks));
    return machine;
}

PoolJob job_of(const StudyConfig& study, const PlannedRun& run, const Machine& machine,
               const std::string& program, const std::string& log) {
    std::vector<std::string> words;
    const auto launcher = run.ranks > 1 ? find_program("mpirun", search_path()) : std::nullopt;
    if (launcher)
        words = {*launcher, "--oversubscribe", "--bind-to", "none", "-np", std::to_string(run.ranks)};
    for (const std::string& word : {program, std::string("train"), study.base}) words.push_back(word);
    for (const std::string& one : run.overrides) {
        words.emplace_back("--set");
        words.push_back(one);
    }
    words.emplace_back("--set");
    words.push_back(fmt::format("cpu.threads={}", machine.threads));
    if (run.ranks > 1 && !launcher) {  // the same numbers, bit for bit
        words.emplace_back("--ranks-as-threads");
        words.push_back(std::to_string(run.ranks));
    }
    return {words, log};
}

std::string point_text(const StudyPoint& point) {
    std::vector<std::string> parts;
    for (const auto& [key, value] : point) parts.push_back(key.substr(key.rfind('.') + 1) + "=" + value);
    return fmt::format("{}", fmt::join(parts, " "));
}

/// What the latest evaluation says of domains and experts, over layers: mean information and what chance
/// gives, nats, and the largest p-value.
void read_domains(const std::string& folder, StudyRow& row) {
    std::ifstream file(folder + "/metrics.jsonl");
    nlohmann::json layers;
    for (std::string line; std::getline(file, line);) {
        if (json_depth(line) > kDeepestRecord) continue;
        const auto record = nlohmann::json::parse(line, nullptr, false);
        if (record.is_object() && record.value("event", nlohmann::json()) == "eval" &&
            record.contains("domain_experts"))
            layers = record["domain_experts"];
    }
    if (!layers.is_array() || layers.empty()) return;
    const auto count = static_cast<double>(layers.size());
    double information = 0, shuffled = 0, p_value = 0;
    for (const auto& layer : layers) {
        for (const char* key : {"mutual_information", "shuffled_information", "p_value"})
            if (!layer.is_object() || !layer.value(key, nlohmann::json()).is_number()) return;
        information += layer.at("mutual_information").get<double>() / count;
        shuffled += layer.at("shuffled_information").get<double>() / count;
        p_value = std::max(p_value, layer.at("p_value").get<double>());
    }
    row["domain_information"] = number_text(information);
    row["domain_information_shuffled"] = number_text(shuffled);
    row["domain_p_value"] = number_text(p_value);
}

/// The last value of each series that a study compares.
void read_results(const PlannedRun& run, StudyRow& row) {
    const RunHistory history = read_run(run.folder);
    row["status"] = history.status;
    if (history.seconds > 0) row["seconds"] = number_text(history.seconds);
    const auto last = [&](const std::string& column, const std::string& series) {
        if (const Series& values = history.at(series); !values.value.empty())
            row[column] = number_text(values.value.back());
    };
    constexpr std::pair<const char*, const char*> kColumns[] = {
        {"tokens", "step.tokens"},
        {"train_loss", "eval.train_probe_loss"},
        {"heldout_loss", "eval.heldout_loss"},
        {"gap", "eval.gap"},
        {"gap_low", "eval.gap_low"},
        {"gap_high", "eval.gap_high"},
        {"gap_error", "eval.gaps.error.value"},
        {"train_error", "eval.train_probe_error"},
        {"heldout_error", "eval.heldout_error"},
        {"heldout_target_error", "eval.heldout_target_error"},
        {"shifted_loss", "eval.shifted_loss"},
        {"shifted_error", "eval.shifted_error"},
        {"shifted_target_error", "eval.shifted_target_error"}};
    for (const auto& [column, series] : kColumns) last(column, series);
    for (const char* fact : {"parameters", "active_parameters", "training_samples"})
        if (const std::string value = history.fact(fact); !value.empty()) row[fact] = value;
    if (const Series& loss = history.at("eval.heldout_loss"); !loss.step.empty())
        row["steps"] = number_text(loss.step.back());
    for (const auto& [name, series] : history.series)
        if (name.starts_with("bound.")) last(name, name);
    row["alarms"] = std::to_string(history.alarms.size());
    read_domains(run.folder, row);
}

StudyTable empty_table(const StudyConfig& study) {
    StudyTable table;
    for (const StudyAxis& axis : study.axes)
        table.columns.insert(table.columns.end(), axis.keys.begin(), axis.keys.end());
    table.columns.emplace_back("seed");
    return table;
}

void add_row(StudyTable& table, StudyRow row, const std::vector<std::string>& order) {
    for (const std::string& column : order)
        if (row.contains(column) && !table.has(column)) table.columns.push_back(column);
    for (const auto& [column, value] : row)
        if (!table.has(column)) table.columns.push_back(column);
    table.rows.push_back(std::move(row));
}

StudyTable simulate(const StudyConfig& study) {
    const Simulation* const simulation = find_simulation(study.simulation);
    StudyTable table = empty_table(study);
    for (const StudyPoint& point : points_of(study)) {
        const StudyRow axes(point.begin(), point.end());
        for (long seed = study.first_seed; seed < study.first_seed + study.seeds; ++seed) {
            StudyRow row = axes;
            row["seed"] = std::to_string(seed);
            simulation->draw(axes, static_cast<u64>(seed), row);
            row["status"] = "done";
            add_row(table, std::move(row), {"gap", "exact"});
        }
    }
    return table;
}

void check_simulation(const StudyConfig& study, Diagnostics& diagnostics) {
    const Simulation* const simulation = find_simulation(study.simulation);
    if (!simulation) {
        std::vector<std::string> names;
        for (const Simulation& one : simulations()) names.emplace_back(one.name);
        diagnostics.add({study.file, "simulation", fmt::format("'{}' is unknown", study.simulation),
                         fmt::format("one of: {}", fmt::join(names, ", "))});
        return;
    }
    std::istringstream stream{std::string(simulation->keys)};
    for (std::string key; stream >> key;) {
        const bool given = std::ranges::all_of(points_of(study), [&](const StudyPoint& point) {
            return number_in(StudyRow(point.begin(), point.end()), key).value_or(0) >= 1;
        });
        if (!given)
            diagnostics.add({study.file, "grid." + key, "is missing or below 1",
                             fmt::format("{} has: {}", simulation->name, simulation->keys)});
    }
}

}  // namespace

void check_points(const StudyConfig& study, Diagnostics& diagnostics) {
    if (!study.simulation.empty()) return check_simulation(study, diagnostics);
    std::vector<std::string> seen;
    for (const StudyPoint& point : points_of(study)) {
        const LoadedConfig loaded = load_config(study.base, overrides_of(study, point, 1));
        for (Diagnostic mistake : loaded.diagnostics.list()) {
            const std::string text = mistake.key + mistake.message;
            if (std::ranges::find(seen, text) != seen.end()) continue;  // once, not once a point
            seen.push_back(text);
            mistake.message += fmt::format(" (at {})", point_text(point));
            diagnostics.add(std::move(mistake));
        }
    }
    if (points_of(study).empty())
        diagnostics.add({study.file, "exclude", "leaves no point of the grid", "keep some"});
}

std::optional<StudyTable> run_study(const StudyConfig& study, const std::string& folder,
                                    const StudyOptions& options) {
    if (!study.simulation.empty()) return simulate(study);
    const std::vector<PlannedRun> runs = planned_runs(study, folder);
    fs::create_directories(folder + "/logs");
    std::vector<std::size_t> missing;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        if (options.resume && is_complete(study, runs[i])) continue;
        fs::remove_all(runs[i].folder);  // half of a run, or one of another study
        missing.push_back(i);
    }
    const Machine machine = share_out(study, runs);
    if (options.print)
        fmt::print("{}: {} runs, {} of them done already; {} at a time, {} threads a rank\n", study.name,
                   runs.size(), runs.size() - missing.size(), machine.at_once, machine.threads);
    std::vector<PoolJob> jobs;
    for (const std::size_t i : missing)
        jobs.push_back(job_of(study, runs[i], machine, options.program,
                              fmt::format("{}/logs/{}.txt", folder, runs[i].name)));
    std::vector<int> codes(runs.size(), 0);
    std::size_t ended = 0;
    const bool all = run_pool(jobs, machine.at_once, [&](std::size_t job, int code) {
        const PlannedRun& run = runs[missing[job]];
        codes[missing[job]] = code;
        if (!options.print) return;
        fmt::print("run {}/{}  {}  {} seed={}  {}\n", ++ended, missing.size(), run.name,
                   point_text(run.point), run.seed,
                   code == 0 ? "done" : fmt::format("failed with {}: {}", code, jobs[job].log));
        std::fflush(stdout);
    });
    if (!all) return std::nullopt;
    StudyTable table = empty_table(study);
    for (std::size_t i = 0; i < runs.size(); ++i) {
        StudyRow row(runs[i].point.begin(), runs[i].point.end());
        row["seed"] = std::to_string(runs[i].seed);
        row["run"] = runs[i].name;
        if (codes[i] == 0) {
            read_results(runs[i], row);
        } else {
            row["status"] = fmt::format("failed with {}", codes[i]);
        }
        add_row(table, std::move(row),
                {"steps", "tokens", "training_samples", "parameters", "active_parameters", "train_loss",
                 "heldout_loss", "gap", "gap_low", "gap_high", "gap_error", "train_error", "heldout_error"});
    }
    return table;
}

}  // namespace moesaic
