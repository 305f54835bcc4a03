// Laws that predict the generalization gap of a configuration from others that were measured.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// One configuration (all its seeds): samples N, experts T, active experts k, and the gap that was measured.
struct GapCell {
    double samples = 1, experts = 1, top_k = 1;
    double gap = 0;            ///< mean over seeds
    double gap_deviation = 0;  ///< of the mean: measurement and seeds together; 0: not known
};

struct GapLaw {
    std::string_view name;
    std::string_view help;
    std::vector<double> start;  ///< of the fitted parameters
    double (*predict)(const std::vector<double>& parameters, const GapCell& at);
};
/// The model first (N, T, k free, saturating), then what it has to beat. Sources: Moesaic; arXiv 2403.17404
/// for the shapes named `published`.
[[nodiscard]] std::span<const GapLaw> gap_laws();
/// The law of that name; asserts that there is one.
[[nodiscard]] const GapLaw& gap_law(std::string_view name);
/// sqrt(k (1 + ln(T/k)) / N), of arXiv 2403.17404.
[[nodiscard]] double published_index(const GapCell& at);

/// Robust fit with weights 1 / (deviation^2 + (0.15 gap)^2).
[[nodiscard]] std::vector<double> fit_gap_law(const GapLaw& law, std::span<const GapCell> cells);

/// How well a law foretells cells that were left out of its fit.
struct LawScore {
    double rmse = 0, log_rmse = 0;  ///< log_rmse over cells whose measured gap is positive
    double spearman = 0;
    i64 cells = 0;  ///< that were foretold
};
/// Each (T, k) pair left out in turn, with all its N.
[[nodiscard]] LawScore leave_one_out(const GapLaw& law, std::span<const GapCell> cells);
/// Fit to the cells that `is_training` takes, scored on the others; empty where one side has fewer than two.
[[nodiscard]] std::optional<LawScore> extrapolate(const GapLaw& law, std::span<const GapCell> cells,
                                                  bool (*is_training)(const GapCell&,
                                                                      std::span<const GapCell>));

/// Interval by the jackknife+ over groups (CV+ of Barber et al. 2021), groups being (T, k) pairs, on the log
/// scale: coverage at least 1 - 2 alpha for groups that are exchangeable, none of which an extrapolation is.
struct GapPrediction {
    double gap = 0, low = 0, high = 0;
    double factor = 1;    ///< half-width of the interval as a factor: sqrt(high / low)
    bool in_hull = true;  ///< of the measured (ln N, ln T, ln k), which is convex
};
[[nodiscard]] GapPrediction predict_gap(const GapLaw& law, std::span<const GapCell> cells, const GapCell& at,
                                        double alpha);
/// Share of cells within the interval that the other (T, k) pairs give for them.
[[nodiscard]] double interval_coverage(const GapLaw& law, std::span<const GapCell> cells, double alpha);

}  // namespace moesaic
