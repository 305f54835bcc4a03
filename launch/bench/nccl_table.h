// Tables and files as nccl-tests prints and writes them, with columns of our own to the right.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/bench/bench_options.h"
#include "launch/bench/bench_world.h"
#include "launch/bench/measurement.h"

namespace moesaic {

/// One size, or one configuration, of a benchmark that moves bytes.
struct ExchangeLine {
    i64 size = 0;   ///< bytes of the rank that sends or receives most, its own share included
    i64 count = 0;  ///< elements per pair of ranks, on average
    double time_us = 0;
    TimeSummary slowest;          ///< by iteration, of the slowest rank
    double algbw = 0, busbw = 0;  ///< GB/s
    std::optional<i64> wrong;     ///< nothing: not checked
    double tokens = 0;            ///< of one rank, on average; 0: the traffic knows no tokens
    i64 top_k = 0;
    double imbalance = 1;
    TravelSplit bytes;  ///< of all ranks in one iteration
    RankTimes times;
};

/// The number in `width` columns with as many decimals, at most two, as there is room for.
[[nodiscard]] std::string fitted(double value, int width);
/// nccl-tests' name of an element type: "float", "double", "bfloat16".
[[nodiscard]] std::string nccl_type_name(DType dtype);

/// How a sweep over sizes was asked for, resolved.
struct SizeSweep {
    i64 smallest = 0, largest = 0, step = 0;
    bool factor = false;
    [[nodiscard]] std::vector<i64> sizes() const;
};

void print_nccl_head(const AlltoallOptions& options, const SizeSweep& sweep, const BenchWorld& world);
void print_nccl_line(const ExchangeLine& line, DType dtype);
/// `failed` of the gates on average bandwidth.
void print_nccl_foot(const std::vector<ExchangeLine>& lines, const BenchGates& gates);

/// Sum of #wrong over the lines, and means of their bandwidths.
[[nodiscard]] i64 wrong_of(const std::vector<ExchangeLine>& lines);
[[nodiscard]] double mean_busbw(const std::vector<ExchangeLine>& lines);
[[nodiscard]] double mean_algbw(const std::vector<ExchangeLine>& lines);

/// A sentence for every gate that does not hold and for wrong elements; none: all is well.
[[nodiscard]] std::vector<std::string> failures_of(const std::vector<ExchangeLine>& lines,
                                                   const BenchGates& gates);
/// Prints them on stderr where this rank `speaks`. Returns the exit code, 0 or 3.
int judge(const char* benchmark, bool speaks, const std::vector<std::string>& failures);

/// Writes nccl-tests' JSON (its version 3), with an object "moe" in every result. A file that is there stays:
/// as nccl-tests does, a number is appended to the name; returns the name.
std::string write_nccl_json(const AlltoallOptions& options, const SizeSweep& sweep, const BenchWorld& world,
                            const std::vector<ExchangeLine>& lines, const std::string& start_time);
/// "2026-11-25 20:30:00", local time.
[[nodiscard]] std::string time_stamp();

}  // namespace moesaic
