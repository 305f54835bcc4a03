// What `moesaic bench` was asked for, and the help that its benchmarks share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/tensor.h"

namespace moesaic {

/// Sizes as in backend.h: tokens T of one rank, width H, hidden F, experts E, top_k K. Zero where a benchmark
/// sweeps over its own list.
struct BenchOptions {
    i64 tokens = 0, width = 0, hidden = 0, experts = 8, top_k = 2;
    std::string dtype = "fp32";       ///< fp32 | fp64
    std::string traffic = "uniform";  ///< uniform | zipf:S
    int threads = 0;                  ///< of a rank; 0: the cores it may use
    i64 iterations = 10, warmup = 2;
    bool json = false;
    std::optional<double> min_peak_fraction;
    int ranks_as_threads = 0;
};

/// Throws UserError, saying what would be right, where something of `options` cannot be.
void check_bench_options(const BenchOptions& options);

/// f32 or f64.
[[nodiscard]] DType bench_dtype(const BenchOptions& options);
/// As the option says, or this rank's share of the cores.
[[nodiscard]] int bench_threads(const BenchOptions& options, int ranks_per_node);
/// Zipf's exponent of `traffic`: 0 is uniform.
[[nodiscard]] double traffic_skew(const BenchOptions& options);

/// MoE layer forward and backward; single products. Both return the exit code.
int bench_layer(const BenchOptions& options);
int bench_gemm(const BenchOptions& options);

}  // namespace moesaic
