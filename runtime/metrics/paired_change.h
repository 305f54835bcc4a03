// How losses of fixed units change from evaluation to evaluation: the same units, so that changes are paired.
#pragma once

#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "runtime/metrics/records.h"

namespace moesaic {

/// z with P(|N(0,1)| > z) = delta.
[[nodiscard]] double two_sided_quantile(double delta);

/// Mean of `values` minus mean of `others`, or with no others the mean itself, with a two-sided normal
/// interval of confidence 1 - delta; units are independent (Welch). Infinite limits where a shard has fewer
/// than two units.
[[nodiscard]] IntervalRecord mean_difference(std::span<const double> values, std::span<const double> others,
                                             double delta);

/// The held-out and the seen training losses of the last evaluations, unit by unit.
class LossHistory {
  public:
    /// Keeps `evaluations` of them, at least 2.
    explicit LossHistory(std::size_t evaluations) : most_(evaluations) {}

    /// One evaluation: losses by unit, always the same units.
    void add(std::span<const double> heldout, std::span<const double> seen);
    /// Since the evaluation before.
    [[nodiscard]] std::optional<IntervalRecord> heldout_change(double delta) const;
    [[nodiscard]] std::optional<IntervalRecord> gap_change(double delta) const;
    /// Least-squares slope of the gap times the length of the history: absent until that is full. Each unit
    /// has its own slope, and these are averaged: what units differ by from the start does not count.
    [[nodiscard]] std::optional<IntervalRecord> gap_rise(double delta) const;

  private:
    using Losses = std::deque<std::vector<double>>;  // the oldest evaluation first
    [[nodiscard]] static std::vector<double> change(const Losses& losses);
    [[nodiscard]] static std::vector<double> rise(const Losses& losses);

    std::size_t most_;
    Losses heldout_, seen_;
};

}  // namespace moesaic
