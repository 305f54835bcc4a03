// The command line of the benchmarks that move rows between ranks.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "comm/exchange/exchange.h"
#include "launch/cli/bench.h"

namespace moesaic {

namespace {

void add_gates(CLI::App* bench, BenchGates& gates) {
    const auto positive = CLI::Range(0.0, 1e12);
    const std::string group = "Acceptance gates (exit code 3)";
    bench->add_option("--min-busbw", gates.min_busbw, "GB/s of bus bandwidth, average of the lines")
        ->check(positive)
        ->group(group);
    bench->add_option("--min-algbw", gates.min_algbw, "GB/s of bandwidth, average of the lines")
        ->check(positive)
        ->group(group);
    bench->add_option("--max-p99-us", gates.max_p99_us, "Microseconds of the slowest rank's p99, every line")
        ->check(positive)
        ->group(group);
    bench->add_option("--max-imbalance", gates.max_imbalance, "Busiest receiver over the mean, every line")
        ->check(positive)
        ->group(group);
}

void add_faults(CLI::App* bench, PlantedFaults& faults) {
    const std::string group = "Proofs that the checks see what they are for";
    bench->add_option("--plant-fault", faults.wrong_elements, "Change N elements after the exchange")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 30))
        ->group(group);
    bench->add_option("--plant-slow-rank", faults.slow_rank, "With --stragglers: a rank that sleeps")
        ->check(CLI::Range(0, 1 << 20))
        ->group(group);
    bench->add_option("--plant-slow-by", faults.slow_by_us, "For so many microseconds")
        ->check(CLI::Range(0.0, 1e7))
        ->group(group)
        ->capture_default_str();
}

/// Options of nccl-tests that have one right value here, so that its command lines work as they are.
void add_fixed_options(CLI::App* bench) {
    const auto only = [bench](const char* names, const char* help, std::vector<std::string> values,
                              const char* remedy) {
        bench
            ->add_option_function<std::string>(
                names, [](const std::string&) {}, help)
            ->type_name("N")
            ->group("Of nccl-tests, with one right value")
            ->check([=](const std::string& given) {
                const bool right = std::find(values.begin(), values.end(), given) != values.end();
                return right ? std::string() : fmt::format("{} is not offered: {}", given, remedy);
            });
    };
    only("-g,--ngpus", "1: GPUs of a process", {"1"}, "one GPU a rank: use mpirun");
    only("-t,--nthreads", "1: threads with GPUs of a process", {"1"}, "one GPU a rank: use mpirun");
    only("-z,--blocking", "0 or 3: a barrier stands before every iteration, outside of its time", {"0", "3"},
         "a barrier stands before every iteration (3), and no call is made to wait besides: leave it out");
}

std::string exchange_names() {
    std::string names = "auto";
    for (const ExchangeKind& kind : exchange_table()) names += ", " + std::string(kind.name);
    return names;
}

}  // namespace

void add_alltoall(CLI::App& bench, Selected& selected) {
    const auto options = std::make_shared<AlltoallOptions>();
    CLI::App* alltoall = bench.add_subcommand("alltoall", "All-to-all of rows, as nccl-tests' alltoall_perf");
    alltoall->add_option("-b,--minbytes", options->min_bytes, "Smallest size: bytes that a rank sends [32M]")
        ->type_name("SIZE");
    alltoall->add_option("-e,--maxbytes", options->max_bytes, "Largest size [32M]")->type_name("SIZE");
    alltoall->add_option("-i,--stepbytes", options->step_bytes, "Step between sizes")
        ->type_name("SIZE")
        ->capture_default_str();
    alltoall->add_option("-f,--stepfactor", options->step_factor, "Factor between sizes, instead of -i")
        ->check(CLI::Range(1, 1 << 20));
    alltoall->add_option("-c,--check", options->checks, "Iterations whose every byte is verified; 0: none")
        ->check(CLI::Range(0, 1 << 20))
        ->capture_default_str();
    alltoall->add_option("-a,--average", options->average, "Time over ranks: 0 rank 0, 1 mean, 2 min, 3 max")
        ->check(CLI::Range(0, 3))
        ->capture_default_str();
    alltoall
        ->add_option("-T,--timeout", options->timeout_seconds,
                     "Seconds until a hanging collective is an error")
        ->check(CLI::Range(0.001, 1e9));
    alltoall->add_option("-J,--output_file", options->json_file, "Write nccl-tests' JSON to a file")
        ->type_name("FILE");
    alltoall
        ->add_option("--matrix-out", options->matrix_out,
                     "Write the last size's bytes between ranks, for "
                     "alltoallv_perf or --traffic matrix:FILE")
        ->type_name("FILE");
    alltoall->add_option("--ranks-per-node", options->ranks_per_node, "Count nodes as blocks of N ranks")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 20));
    alltoall->add_flag("--stragglers", options->stragglers,
                       "Time each rank's own work as well, and name who is slow");
    alltoall
        ->add_option("--tokens", options->routing.tokens,
                     "Most tokens of a rank that a size is cut into [1024]")
        ->check(CLI::Range(1, 1 << 30));
    add_fixed_options(alltoall);
    add_bench_options(alltoall, *options);
    add_routing_options(alltoall, options->routing);
    add_gates(alltoall, options->gates);
    add_faults(alltoall, options->faults);
    alltoall->callback([=, &selected] { selected = [=] { return bench_alltoall(*options); }; });
}

void add_dispatch(CLI::App& bench, Selected& selected) {
    const auto options = std::make_shared<DispatchOptions>();
    CLI::App* dispatch =
        bench.add_subcommand("dispatch", "Rows to experts and back, forward and backward, beside memcpy");
    const auto size = CLI::Range(1, 1 << 30);
    dispatch->add_option("--tokens", options->tokens, "Tokens of one rank: 1024,4096")
        ->delimiter(',')
        ->check(size)
        ->capture_default_str();
    dispatch->add_option("--width", options->widths, "Widths of a row: 512,1024")
        ->delimiter(',')
        ->check(size)
        ->capture_default_str();
    dispatch->add_option("--exchange", options->exchanges, "Exchanges: " + exchange_names())
        ->delimiter(',')
        ->type_name("NAME")
        ->capture_default_str();
    dispatch->add_option("-c,--check", options->checks, "Iterations whose every value is verified; 0: none")
        ->check(CLI::Range(0, 1 << 20))
        ->capture_default_str();
    dispatch
        ->add_option("--matrix-out", options->matrix_out,
                     "Write the last line's bytes between ranks, for "
                     "alltoallv_perf or --traffic matrix:FILE")
        ->type_name("FILE");
    dispatch->add_option("--ranks-per-node", options->ranks_per_node, "Count nodes as blocks of N ranks")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 20));
    dispatch->add_flag("--stragglers", options->stragglers, "Name the rank whose own work takes longest");
    add_bench_options(dispatch, *options);
    add_routing_options(dispatch, options->routing);
    add_gates(dispatch, options->gates);
    dispatch
        ->add_option("--min-memcpy-fraction", options->min_memcpy_fraction,
                     "Dispatch and combine as a share of memcpy, every line")
        ->check(CLI::Range(0.0, 100.0))
        ->group("Acceptance gates (exit code 3)");
    dispatch
        ->add_option("--max-auto-loss", options->max_auto_loss,
                     "With --exchange auto,flat,...: time of auto's choice over the fastest's, less 1")
        ->check(CLI::Range(-1.0, 1e6))
        ->group("Acceptance gates (exit code 3)");
    dispatch->add_option("--plant-fault", options->faults.wrong_elements, "Change N elements that arrive")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 30))
        ->group("Proofs that the checks see what they are for");
    dispatch->callback([=, &selected] { selected = [=] { return bench_dispatch(*options); }; });
}

}  // namespace moesaic
