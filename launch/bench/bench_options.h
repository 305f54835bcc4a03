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

/// `bench layer`: an MoE layer of width H and hidden width F.
struct LayerOptions : BenchOptions {
    RoutingOptions routing;
    i64 width = 0, hidden = 0;
    std::optional<double> min_peak_fraction;
};
/// MoE layer forward and backward. Returns the exit code.
int bench_layer(const LayerOptions& options);

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

/// Type of a --dtype: fp32, fp64, bf16, or nccl-tests' words for them; nothing for any other.
[[nodiscard]] std::optional<DType> parse_dtype(const std::string& name);
void check_dtype(const BenchOptions& options, OptionMistakes& mistakes);
/// Of options that were checked.
[[nodiscard]] DType bench_dtype(const BenchOptions& options);
/// As the option says, or this rank's share of the cores.
[[nodiscard]] int bench_threads(const BenchOptions& options, int ranks_per_node);

}  // namespace moesaic
