// What the benchmarks of `moesaic bench` are asked for: one struct and one function each, and what they
// share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/tensor.h"

namespace moesaic {

/// What every benchmark takes.
struct BenchOptions {
    std::string dtype = "fp32";  ///< see parse_dtype
    int threads = 0;             ///< of a rank; 0: the cores it may use
    i64 iterations = 10, warmup = 2;
    bool json = false;
    int ranks_as_threads = 0;
};

/// Tokens T of one rank, experts E, top_k K, and how tokens choose. Zero where a benchmark has its own.
struct RoutingOptions {
    i64 tokens = 0, experts = 8, top_k = 2;
    std::string traffic = "uniform";
};

/// Acceptance gates: exit code 3 and a sentence each where one does not hold.
struct BenchGates {
    std::optional<double> min_busbw, min_algbw;  ///< GB/s, averages over all lines
    std::optional<double> max_p99_us;            ///< of every line
    std::optional<double> max_imbalance;         ///< of every line
};

/// Proofs that the checks see what they are for.
struct PlantedFaults {
    i64 wrong_elements = 0;  ///< elements that are changed after the exchange, on one rank
    int slow_rank = -1;      ///< a rank that sleeps in its own work
    double slow_by_us = 0;
};

/// `bench alltoall`: sizes as nccl-tests has them, bytes that one rank sends.
struct AlltoallOptions : BenchOptions {
    AlltoallOptions() {
        iterations = 20;
        warmup = 1;
        routing.experts = 0;  // 8, or the next multiple of the ranks
    }
    RoutingOptions routing;
    std::string min_bytes, max_bytes;  ///< "1K"; empty: 32M, or what a matrix file holds
    std::string step_bytes = "1M";
    i64 step_factor = 1;     ///< 1: step_bytes instead
    i64 checks = 1;          ///< iterations that are verified
    int average = 1;         ///< the time over ranks: 0 rank 0, 1 mean, 2 smallest, 3 largest
    int ranks_per_node = 0;  ///< simulated nodes; 0: the real ones
    double timeout_seconds = 0;
    bool stragglers = false;
    std::string json_file, matrix_out;
    BenchGates gates;
    PlantedFaults faults;
};
/// All-to-all of rows between ranks. Returns the exit code.
int bench_alltoall(const AlltoallOptions& options);

/// `bench dispatch`: every combination of tokens of one rank, widths and exchanges.
struct DispatchOptions : BenchOptions {
    DispatchOptions() { routing.experts = 0; }  // 8, or the next multiple of the ranks
    RoutingOptions routing;                     ///< all but tokens
    std::vector<i64> tokens{4096}, widths{1024};
    std::vector<std::string> exchanges{"flat"};
    i64 checks = 1;          ///< iterations whose every value is verified
    int ranks_per_node = 0;  ///< simulated nodes; 0: the real ones
    bool stragglers = false;
    std::string matrix_out;
    BenchGates gates;
    std::optional<double> min_memcpy_fraction;  ///< of dispatch and combine
    std::optional<double> max_auto_loss;        ///< time of what auto takes over the fastest's, less 1
    PlantedFaults faults;
};
/// Rows to experts and back, forward and backward. Returns the exit code.
int bench_dispatch(const DispatchOptions& options);

/// `bench layer`: an MoE layer of width H and hidden width F.
struct LayerOptions : BenchOptions {
    LayerOptions() { routing.traffic = "random"; }  // the mild imbalance of an untrained router
    RoutingOptions routing;
    i64 width = 0, hidden = 0;
    std::string device = "cpu";  ///< as run.device
    bool check = true;           ///< the last iteration's values; large weights take the host long
    std::optional<double> min_peak_fraction;
    PlantedFaults faults;
};
/// MoE layer forward and backward. Returns the exit code.
int bench_layer(const LayerOptions& options);

/// `bench step`: training steps of a configuration. --dtype and --threads stand over what it says.
struct StepOptions : BenchOptions {
    StepOptions() { dtype.clear(); }
    std::string config;
    std::vector<std::string> overrides;  ///< "a.b=c"
    bool stragglers = false;
    std::optional<double> min_peak_fraction, min_tokens_per_s, max_p99_us;
};
/// Whole training steps. Returns the exit code.
int bench_step(const StepOptions& options);

// ------------------------------------------------------------ shared

/// Mistakes on the command line, gathered so that they are told all at once.
class OptionMistakes {
  public:
    void require(bool good, const std::string& text);
    void add(const std::string& text) { require(false, text); }
    /// Throws UserError with every text on a line of its own.
    void throw_if_any() const;

  private:
    std::string text_;
};

/// Bytes of "1K", "64M", "1.5G" or a plain number, in powers of 1024; nothing for anything else.
[[nodiscard]] std::optional<i64> parse_size(const std::string& text);

/// Type of a --dtype: fp32, fp64, bf16, or nccl-tests' words for them; nothing for any other.
[[nodiscard]] std::optional<DType> parse_dtype(const std::string& name);
void check_dtype(const BenchOptions& options, OptionMistakes& mistakes);
/// Of options that were checked.
[[nodiscard]] DType bench_dtype(const BenchOptions& options);
/// As the option says, or this rank's share of the cores.
[[nodiscard]] int bench_threads(const BenchOptions& options, int ranks_per_node);

}  // namespace moesaic
