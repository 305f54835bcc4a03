// The gap of configurations that nobody ran, foretold from the results of a study with a claim of kind
// predictor.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "launch/study/claims.h"
#include "runtime/metrics/statistics/gap_law.h"

namespace moesaic {

/// Of the intervals: the jackknife+ promises 1 - 2 alpha for (T, k) pairs that are exchangeable.
inline constexpr double kPredictionAlpha = 0.1;
inline constexpr std::size_t kEnoughPairs = 12;  ///< (T, k) pairs below which a promise is none

/// A cell for each point of the grid: its place by the claim's columns, mean gap of its runs and standard
/// error of that. Runs without a number are left out.
[[nodiscard]] std::vector<GapCell> gap_cells(const StudyClaim& claim, const StudyTable& table);
/// Different (T, k).
[[nodiscard]] std::size_t pair_count(std::span<const GapCell> cells);
/// Whether there is enough for a fit that leaves pairs out: 4 pairs and 6 cells.
[[nodiscard]] bool enough_to_fit(std::span<const GapCell> cells);
/// The law in N, T, k, fitted to all cells, as an equation.
[[nodiscard]] std::string fitted_law(std::span<const GapCell> cells);

struct ForetoldGap {
    std::string claim;       ///< whose cells it comes from
    GapCell at;              ///< its gap is not known
    double index = 0;        ///< of arXiv 2403.17404: sqrt(k (1 + ln(T/k)) / N)
    GapPrediction law;       ///< by the law in N, T and k
    GapPrediction by_index;  ///< by a constant times the index

    template <class Visitor>
    void fields(Visitor&& visit) const {
        visit("claim", claim);
        visit("experts", at.experts);
        visit("top_k", at.top_k);
        visit("samples", at.samples);
        visit("gap", law.gap);
        visit("low", law.low);
        visit("high", law.high);
        visit("level", 1 - 2 * kPredictionAlpha);
        visit("index", index);
        visit("gap_by_index", by_index.gap);
        visit("low_by_index", by_index.low);
        visit("high_by_index", by_index.high);
        visit("measured_around", law.in_hull);
    }
};
[[nodiscard]] ForetoldGap foretell(const StudyClaim& claim, std::span<const GapCell> cells,
                                   const GapCell& at);

/// The next sizes: twice the experts, twice the samples, and both, from the largest that was measured, with
/// the least and the most active experts.
[[nodiscard]] std::vector<GapCell> next_places(std::span<const GapCell> cells);

/// "experts=64,top_k=2,samples=8000", in any order. Throws UserError with everything that is wrong.
[[nodiscard]] GapCell place_of(const std::string& text);

/// What every claim of kind predictor foretells for these places, as a table with what stands behind it.
/// Throws UserError where there is no such claim, or too few cells.
[[nodiscard]] std::string prediction_text(const StudyConfig& study, const StudyTable& table,
                                          const std::vector<std::string>& places);

}  // namespace moesaic
