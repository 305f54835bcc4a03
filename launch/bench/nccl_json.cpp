// nccl-tests' JSON form of results (-J), version 3: the keys, their nesting and their types are its own.
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/bench/nccl_table.h"
#include "runtime/base/atomic_file.h"
#include "runtime/base/build_info.h"
#include "runtime/base/error.h"

extern char** environ;  // NOLINT

namespace moesaic {

namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> arguments() {
    std::ifstream file("/proc/self/cmdline", std::ios::binary);
    std::vector<std::string> words;
    for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
    return words;
}

/// Of MPI, of launchers and ours. nccl-tests writes all of the environment; secrets live there, too.
std::vector<std::string> environment() {
    std::vector<std::string> kept;
    for (char** entry = environ; *entry; ++entry) {
        const std::string_view text(*entry);
        for (const std::string_view prefix : {"OMPI_MCA_", "OMPI_COMM_WORLD_", "PMIX_RANK", "MPICH_",
                                              "I_MPI_", "SLURM_J", "SLURM_N", "UCX_", "MOESAIC_"}) {
            if (text.starts_with(prefix)) kept.emplace_back(text);
        }
    }
    return kept;
}

std::string words(bool value) {
    return value ? "true" : "false";  // nccl-tests writes booleans as text
}

Json config_of(const AlltoallOptions& options, const SizeSweep& sweep, const BenchWorld& world) {
    Json config{
        {"nthreads", 1}, {"ngpus", 0}, {"minimum_bytes", sweep.smallest}, {"maximum_bytes", sweep.largest}};
    config[sweep.factor ? "step_factor" : "step_bytes"] = sweep.step;
    config["warmup_iters"] = options.warmup;
    config["iterations"] = options.iterations;
    config["aggregated_iterations"] = 1;
    config["validation"] = options.checks;
    config["graph"] = 0;
    config["blocking_collectives"] = words(true);
    config["per_iter_timing"] = words(true);
    config["per_iter_skip"] = 0;
    config["parallel_init"] = words(false);
    config["devices"] = Json::array();
    for (std::size_t i = 0; i < world.ranks.size(); ++i) {
        const BenchRank& rank = world.ranks[i];
        config["devices"].push_back({{"rank", i},
                                     {"group", 0},
                                     {"pid", rank.process},
                                     {"hostname", rank.host},
                                     {"device", rank.local_rank},
                                     {"device_hex", "cpu"},
                                     {"device_info", rank.processor}});
    }
    return config;
}

Json per_iteration(const ExchangeLine& line) {
    const std::vector<double> slowest = line.times.slowest();
    double sum = 0, squares = 0, most = 0;
    for (const double us : slowest) {
        sum += us;
        most = std::max(most, us);
    }
    const double mean = sum / static_cast<double>(slowest.size());
    for (const double us : slowest) squares += (us - mean) * (us - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(slowest.size()));
    Json by_rank = Json::array();
    for (int rank = 0; rank < line.times.ranks; ++rank) {
        Json times = Json::array();
        for (i64 i = 0; i < line.times.iterations(); ++i) times.push_back(line.times.at(rank, i));
        by_rank.push_back(std::move(times));
    }
    return {{"skipped_iterations", 0},
            {"min_us", line.slowest.min},
            {"max_us", most},
            {"avg_us", mean},
            {"p50_us", line.slowest.p50},
            {"p95_us", line.slowest.p95},
            {"p99_us", line.slowest.p99},
            {"stdev_us", deviation},
            {"cv_pct", mean > 0 ? 100 * deviation / mean : 0.0},
            {"times_us", slowest},
            {"per_process_max_times_us", std::move(by_rank)}};
}

Json result_of(const AlltoallOptions& options, const ExchangeLine& line) {
    Json result{{"size", line.size},
                {"count", line.count},
                {"type", nccl_type_name(bench_dtype(options))},
                {"redop", "none"},
                {"root", "    -1"}};
    result["out_of_place"] = {{"time", line.time_us}, {"alg_bw", line.algbw}, {"bus_bw", line.busbw}};
    result["out_of_place"]["nwrong"] = line.wrong ? Json(static_cast<double>(*line.wrong)) : Json(nullptr);
    result["out_of_place_per_iter"] = per_iteration(line);
    result["in_place"] = nullptr;
    result["moe"] = {{"traffic", options.routing.traffic},
                     {"tokens", line.tokens},
                     {"top_k", line.top_k},
                     {"experts", options.routing.experts},
                     {"imbalance", line.imbalance},
                     {"self_bytes", line.bytes.self},
                     {"same_node_bytes", line.bytes.same_node},
                     {"cross_node_bytes", line.bytes.cross_node}};
    result["actual_iterations"] = options.iterations;
    result["experiment_name"] = "";
    return result;
}

/// `file`, or with a number behind it where that is taken.
std::string free_name(const std::string& file) {
    std::string name = file;
    for (int number = 0; std::filesystem::exists(name); ++number) name = fmt::format("{}.{}", file, number);
    return name;
}

}  // namespace

std::string write_nccl_json(const AlltoallOptions& options, const SizeSweep& sweep, const BenchWorld& world,
                            const std::vector<ExchangeLine>& lines, const std::string& start_time) {
    Json document{{"version", 3},
                  {"start_time", start_time},
                  {"args", arguments()},
                  {"env", environment()},
                  {"nccl_version", 0},
                  {"moesaic_version", kVersion},
                  {"moesaic_commit", kCommit}};
    document["config"] = config_of(options, sweep, world);
    document["results"] = Json::array();
    for (const ExchangeLine& line : lines) document["results"].push_back(result_of(options, line));
    const i64 wrong = wrong_of(lines);
    document["out_of_bounds"] = {{"count", wrong}, {"okay", words(wrong == 0)}};
    const std::optional<double> gate = options.gates.min_busbw;
    document["average_bus_bandwidth"] = {{"bandwidth", mean_busbw(lines)},
                                         {"okay", gate ? words(mean_busbw(lines) >= *gate) : "unchecked"}};
    document["errors"] = Json::array();
    document["end_time"] = time_stamp();
    const std::string name = free_name(options.json_file);
    write_file_atomically(name, document.dump(1) + "\n");
    return name;
}

}  // namespace moesaic
