// Options that the benchmarks' command lines share.
#pragma once

#include "launch/bench/bench_options.h"
#include "launch/cli/cli.h"

namespace moesaic {

void add_bench_options(CLI::App* bench, BenchOptions& options);
/// All but --tokens, which some benchmarks take several of.
void add_routing_options(CLI::App* bench, RoutingOptions& options);

void add_alltoall(CLI::App& bench, Selected& selected);
void add_dispatch(CLI::App& bench, Selected& selected);

}  // namespace moesaic
