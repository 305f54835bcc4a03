// Times of repeated runs beside the machine's peak measured between them, and how both are printed.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "runtime/backend.h"

namespace moesaic {

/// Seconds since the last call or the construction.
class Stopwatch {
  public:
    double lap() {
        const auto now = std::chrono::steady_clock::now();
        const std::chrono::duration<double> passed = now - last_;
        last_ = now;
        return passed.count();
    }

  private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// Quantile q of `values` (nearest rank); 0 without any.
[[nodiscard]] double quantile(std::vector<double> values, double q);

struct TimeSummary {
    double min = 0, p50 = 0, p95 = 0, p99 = 0;
    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("min", min);
        visit("p50", p50);
        visit("p95", p95);
        visit("p99", p99);
    }
};
[[nodiscard]] TimeSummary summary_of(const std::vector<double>& microseconds);

/// What every rank measured in every iteration, microseconds.
struct RankTimes {
    int ranks = 1;
    std::vector<double> us;  ///< [ranks, iterations]
    [[nodiscard]] i64 iterations() const { return std::ssize(us) / ranks; }
    [[nodiscard]] double at(int rank, i64 iteration) const {
        return us[static_cast<std::size_t>(rank * iterations() + iteration)];
    }
    [[nodiscard]] double mean_of(int rank) const;
    /// [iterations] the slowest rank's.
    [[nodiscard]] std::vector<double> slowest() const;
};
/// Collective over `world`; as many values on every rank.
[[nodiscard]] RankTimes gather_times(Communicator& world, std::vector<double> mine);

/// Samples of the peak of `threads` threads, taken in the run whose share of it is reported. Neighbours on a
/// machine slow some samples and some iterations alike; the peak that counts is the median of the samples. Of
/// a GPU, whose arithmetic alone cannot be reached from here, it is the rate of its library's square product.
class PeakSamples {
  public:
    PeakSamples(int threads, DType dtype) : threads_(threads), dtype_(dtype) {}
    /// The GPU's where `backend` is one. Its product has about `flops` operations, but no more than it takes
    /// to fill a GPU; `backend` and `stream` stay.
    PeakSamples(Backend& backend, Stream& stream, int threads, DType dtype, double flops);
    /// Collective over `world`: all ranks measure at once. A few milliseconds.
    void take(Communicator& world);
    /// GFLOP/s of this rank's threads.
    [[nodiscard]] double gflops() const { return quantile(samples_, 0.5); }
    /// Collective over `world`.
    [[nodiscard]] double sum_over(Communicator& world) const;

  private:
    struct SquareProduct {
        Backend* backend;
        Stream* stream;
        Tensor a, b, c;
        [[nodiscard]] double gflops();
    };
    int threads_;
    DType dtype_;
    std::optional<SquareProduct> product_;  // on a GPU
    std::vector<double> samples_;
};

}  // namespace moesaic
