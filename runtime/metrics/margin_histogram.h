// How sure a model is of what is right: counts of margins, whose sum over ranks is exact, and their
// quantiles.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// Margins of targets, the right logit minus the largest other, in bins of 0.05 from -50 to 50; what lies
/// beyond counts as the outermost bin's.
class MarginHistogram {
  public:
    static constexpr double kLeast = -50, kWidth = 0.05;
    static constexpr i64 kBins = 2000;

    MarginHistogram() : counts_(static_cast<std::size_t>(kBins), 0) {}

    /// Masked targets, whose margin is infinite, do not count.
    void add(std::span<const double> margins);
    /// Of several ranks they may be added up.
    [[nodiscard]] std::vector<i64>& counts() { return counts_; }
    [[nodiscard]] i64 total() const;
    /// The margin below which that share of them lies, as if spread evenly within a bin: at most one bin's
    /// width off. Not a number where there are none.
    [[nodiscard]] double quantile(double share) const;

  private:
    std::vector<i64> counts_;
};

}  // namespace moesaic
