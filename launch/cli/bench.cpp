// The command line of `bench`.
#include <CLI/CLI.hpp>
#include <memory>

#include "launch/bench/bench_options.h"
#include "launch/cli/cli.h"

namespace moesaic {

namespace {

void add_sizes(CLI::App* bench, BenchOptions& options) {
    const auto size = CLI::Range(1, 1 << 30);
    bench->add_option("--tokens", options.tokens, "Tokens of one rank (gemm: rows)")->check(size);
    bench->add_option("--width", options.width, "Width of the model (gemm: inner extent)")->check(size);
    bench->add_option("--hidden", options.hidden, "Hidden width of an expert (gemm: columns)")->check(size);
    bench->add_option("--dtype", options.dtype, "fp32 or fp64")->type_name("NAME");
    bench->add_option("--threads", options.threads, "Threads of a rank, instead of the cores it may use")
        ->check(CLI::Range(1, 4096));
    bench->add_option("--iterations", options.iterations, "Timed iterations")->check(size);
    bench->add_option("--warmup", options.warmup, "Iterations before those")->check(CLI::Range(0, 1 << 30));
    bench->add_flag("--json", options.json, "Print one JSON object a line");
    bench
        ->add_option("--min-peak-fraction", options.min_peak_fraction,
                     "Exit with 3 below this share of the measured peak")
        ->check(CLI::Range(0.0, 10.0));
}

void add_layer(CLI::App& bench, Selected& selected) {
    const auto options = std::make_shared<BenchOptions>();
    CLI::App* layer = bench.add_subcommand("layer", "Forward and backward of one MoE layer");
    add_sizes(layer, *options);
    layer->add_option("--experts", options->experts, "Experts")->check(CLI::Range(1, 1 << 20));
    layer->add_option("--top-k", options->top_k, "Experts of a token")->check(CLI::Range(1, 1 << 20));
    layer->add_option("--traffic", options->traffic, "How tokens choose: uniform or zipf:S")
        ->type_name("NAME");
    add_ranks_as_threads(layer, options->ranks_as_threads);
    layer->callback([=, &selected] { selected = [=] { return bench_layer(*options); }; });
}

}  // namespace

void add_bench_commands(CLI::App& app, Selected& selected) {
    CLI::App* bench = app.add_subcommand("bench", "Benchmarks, laid out as nccl-tests lays them out");
    bench->require_subcommand(1);
    add_layer(*bench, selected);
    for (const char* name : {"bench alltoall", "bench dispatch", "bench step"})
        add_later_command(*bench, name, "", selected);
}

}  // namespace moesaic
