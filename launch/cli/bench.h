// Options that the benchmarks' command lines share.
#pragma once

#include "launch/bench/bench_options.h"

namespace CLI {
class App;
}

namespace moesaic {

void add_bench_options(CLI::App* bench, BenchOptions& options);
void add_routing_options(CLI::App* bench, RoutingOptions& options);

}  // namespace moesaic
