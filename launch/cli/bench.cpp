// The command line of `bench`: what all benchmarks share, and those that compute.
#include "launch/cli/bench.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "comm/traffic/traffic.h"
#include "launch/bench/gemm_bench.h"
#include "launch/cli/cli.h"

namespace moesaic {

namespace {

std::string traffic_names() {
    std::string names;
    for (const TrafficKind& kind : traffic_table()) {
        names += (names.empty() ? "" : ", ") + std::string(kind.name);
        if (kind.takes_file) names += ":FILE";
        if (!kind.parameters.empty()) names += ":" + std::string(kind.parameters[0].name);
    }
    return names;
}

}  // namespace

void add_bench_options(CLI::App* bench, BenchOptions& options) {
    const auto count = CLI::Range(1, 1 << 30);
    bench->add_option("-d,--dtype,--datatype", options.dtype, "fp32, fp64 or bf16; float, double, bfloat16")
        ->type_name("NAME");
    bench->add_option("--threads", options.threads, "Threads of a rank, instead of the cores it may use")
        ->check(CLI::Range(1, 4096));
    bench->add_option("-n,--iterations,--iters", options.iterations, "Timed iterations")
        ->check(count)
        ->capture_default_str();
    bench->add_option("-w,--warmup,--warmup_iters", options.warmup, "Iterations before those")
        ->check(CLI::Range(0, 1 << 30))
        ->capture_default_str();
    bench->add_flag("--json", options.json, "Print one JSON object a line");
    add_ranks_as_threads(bench, options.ranks_as_threads);
}

void add_routing_options(CLI::App* bench, RoutingOptions& options) {
    bench->add_option("--experts", options.experts, "Experts")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    bench->add_option("--top-k", options.top_k, "Experts of a token")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    bench->add_option("--traffic", options.traffic, "How tokens choose: " + traffic_names())
        ->type_name("NAME")
        ->capture_default_str();
}

namespace {

void add_layer(CLI::App& bench, Selected& selected) {
    const auto options = std::make_shared<LayerOptions>();
    CLI::App* layer = bench.add_subcommand("layer", "Forward and backward of one MoE layer");
    add_bench_options(layer, *options);
    add_routing_options(layer, options->routing);
    const auto size = CLI::Range(1, 1 << 30);
    layer->add_option("--tokens", options->routing.tokens, "Tokens of one rank")->check(size);
    layer->add_option("--width", options->width, "Width of the model")->check(size);
    layer->add_option("--hidden", options->hidden, "Hidden width of an expert")->check(size);
    layer->add_option("--device", options->device, "cpu, cuda or auto")
        ->type_name("NAME")
        ->capture_default_str();
    layer
        ->add_option("-c,--check", options->check,
                     "Whether the last iteration is verified; 0: not, since large weights take the host long")
        ->capture_default_str();
    layer
        ->add_option("--min-peak-fraction", options->min_peak_fraction,
                     "Exit with 3 below this share of the measured peak")
        ->check(CLI::Range(0.0, 10.0));
    layer
        ->add_option("--plant-fault", options->faults.wrong_elements, "Change N values of one token's result")
        ->type_name("N")
        ->check(CLI::Range(1, 1 << 30))
        ->group("Proofs that the checks see what they are for");
    layer->callback([=, &selected] { selected = [=] { return bench_layer(*options); }; });
}

void add_gemm(CLI::App& bench, Selected& selected) {
    const auto options = std::make_shared<GemmOptions>();
    CLI::App* gemm = bench.add_subcommand("gemm", "Matrix products, single and grouped");
    add_bench_options(gemm, *options);
    const auto extent = CLI::Range(1, 1 << 24);
    gemm->add_option("--m", options->m, "Rows of the result, a list: 17,64,1024")
        ->delimiter(',')
        ->check(extent);
    gemm->add_option("--n", options->n, "Columns of the result, a list")->delimiter(',')->check(extent);
    gemm->add_option("--k", options->k, "Inner extents, a list")->delimiter(',')->check(extent);
    gemm->add_option("--groups", options->groups, "Groups with a weight of their own, a list; 0: one product")
        ->delimiter(',')
        ->check(CLI::Range(0, 1 << 20));
    gemm->add_option("--layout", options->layouts, "NN, NT, TN, a list; all")
        ->delimiter(',')
        ->type_name("NAME");
    gemm->add_option("--packed", options->packed, "Weights packed beforehand: yes, no or both")
        ->type_name("NAME");
    gemm->add_option("--against", options->against, "Another library's product beside ours, in turn: onednn")
        ->type_name("NAME");
    gemm->add_option("--min-ratio", options->min_ratio,
                     "Exit with 3 where a size is slower than so many times the other library")
        ->check(CLI::Range(0.0, 100.0));
    gemm->add_option("--min-peak-fraction", options->min_peak_fraction,
                     "Exit with 3 where a size is below this share of the measured peak")
        ->check(CLI::Range(0.0, 10.0));
    gemm->callback([=, &selected] { selected = [=] { return bench_gemm(*options); }; });
}

void add_step(CLI::App& bench, Selected& selected) {
    const auto options = std::make_shared<StepOptions>();
    CLI::App* step =
        bench.add_subcommand("step", "Training steps of a configuration, and where their time goes");
    step->add_option("CONFIG", options->config, "Configuration (YAML)")->required();
    add_overrides(step, options->overrides);
    add_bench_options(step, *options);
    step->add_flag("--stragglers", options->stragglers, "Name the rank whose own work takes longest");
    const std::string gates = "Acceptance gates (exit code 3)";
    step->add_option("--min-peak-fraction", options->min_peak_fraction, "Share of the measured peak")
        ->check(CLI::Range(0.0, 10.0))
        ->group(gates);
    step->add_option("--min-tokens-per-s", options->min_tokens_per_s, "Tokens per second of all ranks")
        ->check(CLI::Range(0.0, 1e15))
        ->group(gates);
    step->add_option("--max-p99-us", options->max_p99_us, "Microseconds of the slowest rank's p99")
        ->check(CLI::Range(0.0, 1e12))
        ->group(gates);
    step->callback([=, &selected] { selected = [=] { return bench_step(*options); }; });
}

}  // namespace

void add_bench_commands(CLI::App& app, Selected& selected) {
    CLI::App* bench = app.add_subcommand("bench", "Benchmarks, laid out as nccl-tests lays them out");
    bench->require_subcommand(1);
    add_alltoall(*bench, selected);
    add_dispatch(*bench, selected);
    add_layer(*bench, selected);
    add_gemm(*bench, selected);
    add_step(*bench, selected);
}

}  // namespace moesaic
