// Which rank or host is slower than the others: each rank's own work and its wait for the slowest.
#pragma once

#include <string>
#include <vector>

#include "launch/bench/bench_world.h"
#include "launch/bench/measurement.h"

namespace moesaic {

/// One rank, or the mean of one host's ranks.
struct StragglerRow {
    std::string name;     ///< "rank 3" or a host
    double own_us = 0;    ///< mean time of its own work, before the slowest arrives
    double wait_us = 0;   ///< mean time until the slowest arrived
    double relative = 1;  ///< own time over the median of all; of two, over the smaller
    double score = 0;     ///< robust z-score of the own time
    bool odd = false;
    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("name", name);
        visit("own_us", own_us);
        visit("wait_us", wait_us);
        visit("wait_share", wait_share());
        visit("relative", relative);
        visit("z_score", score);
        visit("odd", odd);
    }
    [[nodiscard]] double wait_share() const {
        return own_us + wait_us > 0 ? wait_us / (own_us + wait_us) : 0;
    }
};

struct StragglerReport {
    std::vector<StragglerRow> ranks, hosts;
    [[nodiscard]] std::string verdict() const;  ///< one sentence that names who is odd
};

/// Robust z-scores: (x - median) / (1.4826 MAD), where 1.4826 makes the median absolute deviation a standard
/// deviation of normal values (Iglewicz and Hoaglin 1993, "How to detect and handle outliers"). MAD is at
/// least 1 % of the median, so that equal values do not make scores of noise.
[[nodiscard]] std::vector<double> robust_scores(const std::vector<double>& values);

/// From every rank's own times. In iteration i a rank waits for max over ranks of own(., i) - own(r, i). Odd
/// is who is slower than the median by more than 3.5 robust deviations and by more than 5 %; of two, the
/// slower one by more than 5 %.
[[nodiscard]] StragglerReport find_stragglers(const RankTimes& own, const BenchWorld& world);
void print_stragglers(const StragglerReport& report);
/// One object: {"bench":"stragglers","ranks":[...],"hosts":[...],"verdict"}.
void print_straggler_json(const StragglerReport& report);

}  // namespace moesaic
