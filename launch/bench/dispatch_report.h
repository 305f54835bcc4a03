// What `bench dispatch` measured, and how it is printed.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/bench/nccl_table.h"

namespace moesaic {

/// What is timed: the four ways of a micro-batch, what goes before them, the ceiling, and the rival: the
/// same rows, packed already, there and back through MPI_Alltoallv.
enum DispatchPhase : std::size_t {
    kPlan,
    kDispatch,
    kCombine,
    kCombineBackward,
    kDispatchBackward,
    kCopy,
    kBareMpi,
    kPhases
};
inline constexpr std::array<const char*, kPhases> kPhaseNames{"plan",      "dispatch", "combine", "combine'",
                                                              "dispatch'", "memcpy",   "MPI"};

/// Of one exchange.
struct DispatchLine {
    std::string exchange;
    i64 tokens = 0, width = 0;
    int threads = 1;
    std::array<double, kPhases> phase_us{};  ///< p50 of the slowest rank's
    double forward_us = 0, backward_us = 0;
    double with_plan_us = 0;  ///< all but the rivals, which is what `auto` minimises
    double memcpy_gbs = 0;
    bool has_bare_mpi = false;
    ExchangeLine moved;  ///< bytes one way; times of all four
    RankTimes own;
    /// Of dispatch and combine, self included: copies are what memcpy is.
    [[nodiscard]] double forward_gbs() const { return 2e-3 * static_cast<double>(moved.size) / forward_us; }
    [[nodiscard]] double backward_gbs() const { return 2e-3 * static_cast<double>(moved.size) / backward_us; }
    /// How many times as fast as bare MPI dispatch and combine are together.
    [[nodiscard]] double over_mpi() const { return phase_us[kBareMpi] / forward_us; }
};

/// From laps of all ranks, kPhases an iteration, and what each sends each one way.
void set_times(DispatchLine& line, const RankTimes& laps, const RankMatrix& bytes);

/// Lines of `auto` are called so, with what it took behind.
inline constexpr std::string_view kAutoPrefix = "auto:";

/// What `auto` took, beside the fastest of the exchanges that were measured by name in the same run.
struct AutoChoice {
    std::string taken, fastest;
    double loss = 0;  ///< time of the one over the other, less 1
};
/// Of lines with one micro-batch; nothing where `auto` is not among them, or alone, or took what is not.
[[nodiscard]] std::optional<AutoChoice> judge_auto(const std::vector<DispatchLine>& lines);

void print_dispatch_head(const DispatchOptions& options, const BenchWorld& world, int threads);
void print_dispatch_line(const DispatchOptions& options, const DispatchLine& line);
void print_dispatch_json(const DispatchOptions& options, const BenchWorld& world, const DispatchLine& line);
/// `line` says of which tokens and width.
void print_auto_choice(const DispatchOptions& options, const DispatchLine& line, const AutoChoice& choice);

}  // namespace moesaic
