// What `bench dispatch` measured, and how it is printed.
#pragma once

#include <array>
#include <string>

#include "launch/bench/nccl_table.h"

namespace moesaic {

/// What is timed: the four ways of a micro-batch, what goes before them, and the ceiling.
enum DispatchPhase : std::size_t {
    kPlan,
    kDispatch,
    kCombine,
    kCombineBackward,
    kDispatchBackward,
    kCopy,
    kPhases
};
inline constexpr std::array<const char*, kPhases> kPhaseNames{"plan",     "dispatch",  "combine",
                                                              "combine'", "dispatch'", "memcpy"};

/// Of one exchange.
struct DispatchLine {
    std::string exchange;
    i64 tokens = 0, width = 0;
    int threads = 1;
    std::array<double, kPhases> phase_us{};  ///< p50 of the slowest rank's
    double forward_us = 0, backward_us = 0;
    double memcpy_gbs = 0;
    ExchangeLine moved;  ///< bytes one way; times of all four
    RankTimes own;
    /// Of dispatch and combine, self included: copies are what memcpy is.
    [[nodiscard]] double forward_gbs() const { return 2e-3 * static_cast<double>(moved.size) / forward_us; }
    [[nodiscard]] double backward_gbs() const { return 2e-3 * static_cast<double>(moved.size) / backward_us; }
};

void print_dispatch_head(const DispatchOptions& options, const BenchWorld& world, int threads);
void print_dispatch_line(const DispatchOptions& options, const DispatchLine& line);
void print_dispatch_json(const DispatchOptions& options, const BenchWorld& world, const DispatchLine& line);

}  // namespace moesaic
