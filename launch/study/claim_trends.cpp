// Claims about how a number follows an axis: slopes, rank correlations, the gap law.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "launch/study/claim_kinds.h"
#include "launch/study/claim_options.h"
#include "launch/study/gap_prediction.h"
#include "runtime/base/philox.h"
#include "runtime/metrics/statistics/fits.h"

namespace moesaic {

namespace {

constexpr double kIntervalAlpha = 0.1;  // intervals of 90 %
constexpr i64 kDraws = 2000;
constexpr u64 kSeed = 1;

/// Correlation of means over cells, and percentiles of it when cells are drawn anew.
struct RankFit {
    double estimate = 0, low = 0, high = 0;
};
RankFit rank_fit(const std::vector<double>& left, const std::vector<double>& right) {
    RankFit fit{.estimate = spearman(left, right)};
    const Philox random(kSeed, "bootstrap of cells for ranks");
    std::vector<double> drawn;
    u64 counter = 0;
    for (i64 draw = 0; draw < kDraws; ++draw) {
        std::vector<double> x, y;
        for (std::size_t i = 0; i < left.size(); ++i) {
            const auto at = std::min(
                left.size() - 1,
                static_cast<std::size_t>(random.uniform(counter++) * static_cast<double>(left.size())));
            x.push_back(left[at]);
            y.push_back(right[at]);
        }
        if (const double value = spearman(x, y); std::isfinite(value)) drawn.push_back(value);
    }
    fit.low = drawn.empty() ? -1 : quantile_of(drawn, kIntervalAlpha / 2);
    fit.high = drawn.empty() ? 1 : quantile_of(drawn, 1 - kIntervalAlpha / 2);
    return fit;
}

bool is_small(const GapCell& cell, std::span<const GapCell> cells, double GapCell::*axis) {
    return cell.*axis < std::ranges::max(cells, {}, axis).*axis;
}

}  // namespace

void judge_slope(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                 ClaimResult& result) {
    const std::vector<std::string> axes = split_list(claim_text(claim, "against"));
    std::vector<Cell> cells;
    for (const StudyGroup& group : groups_of(table, rows)) {
        Cell cell{{}, numbers_of(group.rows, claim_text(claim, "of"))};
        for (const std::string& axis : axes)
            if (const auto x = number_in(*group.rows.front(), axis); x && *x > 0) cell.x.push_back(*x);
        if (cell.x.size() == axes.size()) cells.push_back(std::move(cell));
    }
    const auto fit = log_log_slope(cells, kIntervalAlpha, kDraws, kSeed);
    if (!fit) {
        result.finding =
            fmt::format("{} cells do not determine a slope in {} (at least {} are needed, all positive)",
                        cells.size(), fmt::join(axes, ", "), axes.size() + 2);
        return;
    }
    result.estimate = fit->slope[0];
    result.low = fit->low[0];
    result.high = fit->high[0];
    result.smallest_detectable = (fit->high[0] - fit->low[0]) / 2;
    const double low = claim_number(claim, "low", -kUnlimited),
                 high = claim_number(claim, "high", kUnlimited);
    result.verdict = verdict_of(fit->low[0], fit->high[0], low, high);
    std::vector<std::string> slopes;
    for (std::size_t i = 0; i < axes.size(); ++i)
        slopes.push_back(
            fmt::format("{:.3f} [{:.3f}, {:.3f}] in {}", fit->slope[i], fit->low[i], fit->high[i], axes[i]));
    result.finding = fmt::format(
        "slope of ln {}: {} (90 %, {} cells{}); expected [{}, {}]", claim_text(claim, "of"),
        fmt::join(slopes, ", "), fit->cells,
        fit->left_out > 0 ? fmt::format(", {} runs not positive left out", fit->left_out) : "", low, high);
    // Runs whose gap is not positive are not lost at random: without them a slope would flatter.
    if (too_many_lost(fit->left_out + result.missing, result.rows + result.missing))
        result.verdict = Verdict::inconclusive;
}

void judge_rank_correlation(const StudyClaim& claim, const StudyTable& table,
                            const std::vector<const StudyRow*>& rows, ClaimResult& result) {
    std::vector<double> left, right;
    for (const StudyGroup& group : groups_of(table, rows)) {
        const std::vector<double> x = numbers_of(group.rows, claim_text(claim, "of"));
        const std::vector<double> y = numbers_of(group.rows, claim_text(claim, "with"));
        if (x.empty() || y.empty()) continue;
        left.push_back(mean_of(x));
        right.push_back(mean_of(y));
    }
    const double wanted = claim_number(claim, "at_least", 0);
    if (left.size() < 4) {
        result.finding = fmt::format("{} cells are too few for a rank correlation", left.size());
        return;
    }
    const RankFit fit = rank_fit(left, right);
    if (!std::isfinite(fit.estimate)) {
        result.finding = "one of the two does not vary";
        return;
    }
    result.estimate = fit.estimate;
    result.low = fit.low;
    result.high = fit.high;
    // Few cells have high correlations by chance, and drawing them anew does not tell.
    result.p = spearman_chance(left, right);
    if (fit.high < wanted) result.verdict = Verdict::not_reproduced;
    if (fit.estimate >= wanted && fit.low > 0 && *result.p < 0.05) result.verdict = Verdict::reproduced;
    result.finding =
        fmt::format("Spearman {:.3f} [{:.3f}, {:.3f}] (90 %) over {} cells, p {:.3g}; expected at least {}",
                    fit.estimate, fit.low, fit.high, left.size(), *result.p, wanted);
}

void judge_predictor(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>&,
                     ClaimResult& result) {
    const std::vector<GapCell> cells = gap_cells(claim, table);
    const std::size_t pairs = pair_count(cells);
    constexpr double kPromised = 1 - 2 * kPredictionAlpha;
    if (!enough_to_fit(cells)) {
        result.finding = fmt::format("{} (T, k) pairs and {} cells are too few", pairs, cells.size());
        return;
    }
    const auto larger_experts = [](const GapCell& cell, std::span<const GapCell> all) {
        return is_small(cell, all, &GapCell::experts);
    };
    const auto more_samples = [](const GapCell& cell, std::span<const GapCell> all) {
        return is_small(cell, all, &GapCell::samples);
    };
    std::vector<std::string> lines;
    std::vector<std::array<double, 3>> scores;
    for (const GapLaw& law : gap_laws()) {
        const LawScore left_out = leave_one_out(law, cells);
        const auto experts = extrapolate(law, cells, larger_experts),
                   samples = extrapolate(law, cells, more_samples);
        const double none = std::nan("");
        scores.push_back(
            {left_out.log_rmse, experts ? experts->log_rmse : none, samples ? samples->log_rmse : none});
        lines.push_back(fmt::format("{} {:.3f}/{:.3f}/{:.3f} (Spearman {:.2f})", law.name, scores.back()[0],
                                    scores.back()[1], scores.back()[2], left_out.spearman));
    }
    const double coverage = interval_coverage(gap_laws().front(), cells, kPredictionAlpha);
    const double factor =
        predict_gap(gap_laws().front(), cells, cells[cells.size() / 2], kPredictionAlpha).factor;
    result.estimate = scores.front()[0];
    bool wins = coverage >= kPromised;
    for (std::size_t i = 1; i < scores.size(); ++i) {
        const std::string_view name = gap_laws()[i].name;
        if (name != "saturating_N" && name != "sqrt_T_over_N") continue;
        for (std::size_t split = 0; split < 3; ++split)
            wins = wins && scores.front()[split] < scores[i][split];
    }
    result.verdict = wins ? Verdict::reproduced : Verdict::not_reproduced;
    if (pairs < kEnoughPairs) result.verdict = Verdict::inconclusive;
    result.finding = fmt::format(
        "rms error of ln gap, left-out (T, k) / largest T / largest N: {}; jackknife+ intervals of alpha "
        "{:g}, "
        "which promise 1 - 2 alpha = {:g}, cover {:.2f}, their half-width a factor {:.2f}; {} (T, k) pairs, "
        "{} cells{}; {}",
        fmt::join(lines, ", "), kPredictionAlpha, kPromised, coverage, factor, pairs, cells.size(),
        pairs < kEnoughPairs ? ", of which 12 pairs are needed" : "", fitted_law(cells));
}

}  // namespace moesaic
