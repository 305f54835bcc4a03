#include "runtime/metrics/statistics/gap_law.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "runtime/base/error.h"
#include "runtime/metrics/statistics/convex_hull.h"
#include "runtime/metrics/statistics/fits.h"
#include "runtime/metrics/statistics/summary.h"

namespace moesaic {

namespace {

using Parameters = std::vector<double>;
using Group = std::pair<double, double>;  // T, k

constexpr double kSmallestGap = 1e-12;  // of a prediction, before its logarithm

Group group_of(const GapCell& cell) {
    return {cell.experts, cell.top_k};
}

/// g x / (1 + x) with ln x = `exponent` and g = e^`limit`.
double saturating(double limit, double exponent) {
    return std::exp(limit) / (1 + std::exp(-exponent));
}

double free_law(const Parameters& p, const GapCell& at) {
    return saturating(p[0], p[1] + p[2] * std::log(at.samples / 1000) + p[3] * std::log(at.experts / 8) +
                                p[4] * std::log(at.top_k / 2));
}

double samples_law(const Parameters& p, const GapCell& at) {
    return saturating(p[0], p[1] + p[2] * std::log(at.samples / 1000));
}

double published_saturating(const Parameters& p, const GapCell& at) {
    return saturating(p[0], p[1] + 2 * std::log(published_index(at)));
}

double published_shape(const Parameters& p, const GapCell& at) {
    return std::exp(p[0]) * published_index(at);
}

/// With d_N = d T: the routing term up to a factor, ln(2N) of it included.
double published_linear(const Parameters& p, const GapCell& at) {
    const double masks = 2 * at.top_k * (1 + std::log(at.experts / at.top_k)) + std::log(2 * at.samples);
    return std::exp(p[0]) * std::sqrt(at.experts * masks / at.samples);
}

double experts_shape(const Parameters& p, const GapCell& at) {
    return std::exp(p[0]) * std::sqrt(at.experts / at.samples);
}

double active_share_shape(const Parameters& p, const GapCell& at) {
    return std::exp(p[0]) * std::sqrt(at.experts / (at.top_k * at.samples));
}

double log_prediction(const GapLaw& law, const Parameters& parameters, const GapCell& at) {
    return std::log(std::max(law.predict(parameters, at), kSmallestGap));
}

std::vector<GapCell> without(std::span<const GapCell> cells, const Group& group) {
    std::vector<GapCell> kept;
    for (const GapCell& cell : cells)
        if (group_of(cell) != group) kept.push_back(cell);
    return kept;
}

std::set<Group> groups_of(std::span<const GapCell> cells) {
    std::set<Group> groups;
    for (const GapCell& cell : cells) groups.insert(group_of(cell));
    return groups;
}

LawScore score(const std::vector<double>& predicted, const std::vector<double>& measured) {
    LawScore result;
    result.cells = static_cast<i64>(measured.size());
    double squares = 0, log_squares = 0, logs = 0;
    for (std::size_t i = 0; i < measured.size(); ++i) {
        squares += (predicted[i] - measured[i]) * (predicted[i] - measured[i]);
        if (!(measured[i] > 0)) continue;
        const double ratio = std::log(std::max(predicted[i], kSmallestGap) / measured[i]);
        log_squares += ratio * ratio;
        ++logs;
    }
    result.rmse = std::sqrt(squares / static_cast<double>(measured.size()));
    result.log_rmse = logs > 0 ? std::sqrt(log_squares / logs) : std::numeric_limits<double>::quiet_NaN();
    result.spearman = spearman(predicted, measured);
    return result;
}

std::vector<double> log_place(const GapCell& cell) {
    return {std::log(cell.samples), std::log(cell.experts), std::log(cell.top_k)};
}

/// One prediction per place; fits that leave a group out serve all of them.
std::vector<GapPrediction> predictions(const GapLaw& law, std::span<const GapCell> cells,
                                       std::span<const GapCell> places, double alpha) {
    std::vector<std::vector<double>> lows(places.size()), highs(places.size());
    for (const Group& group : groups_of(cells)) {
        const std::vector<GapCell> others = without(cells, group);
        if (others.empty()) continue;
        const Parameters parameters = fit_gap_law(law, others);
        for (const GapCell& cell : cells) {
            if (group_of(cell) != group || !(cell.gap > 0)) continue;
            const double miss = std::abs(std::log(cell.gap) - log_prediction(law, parameters, cell));
            for (std::size_t i = 0; i < places.size(); ++i) {
                const double here = log_prediction(law, parameters, places[i]);
                lows[i].push_back(here - miss);
                highs[i].push_back(here + miss);
            }
        }
    }
    const Parameters parameters = fit_gap_law(law, cells);
    std::vector<std::vector<double>> measured;
    for (const GapCell& cell : cells) measured.push_back(log_place(cell));
    std::vector<GapPrediction> list(places.size());
    for (std::size_t i = 0; i < places.size(); ++i) {
        list[i].gap = law.predict(parameters, places[i]);
        list[i].in_hull = in_convex_hull(measured, log_place(places[i]));
        // Order statistics floor(alpha (n + 1)) and ceil((1 - alpha)(n + 1)); beyond the ends there is no
        // limit.
        std::ranges::sort(lows[i]);
        std::ranges::sort(highs[i]);
        const auto count = static_cast<double>(lows[i].size());
        const double below = std::floor(alpha * (count + 1)), above = std::ceil((1 - alpha) * (count + 1));
        list[i].low = below >= 1 ? std::exp(lows[i][static_cast<std::size_t>(below) - 1]) : 0;
        list[i].high = above <= count ? std::exp(highs[i][static_cast<std::size_t>(above) - 1])
                                      : std::numeric_limits<double>::infinity();
        list[i].factor = std::sqrt(list[i].high / list[i].low);
    }
    return list;
}

}  // namespace

std::span<const GapLaw> gap_laws() {
    static const std::vector<GapLaw> table{
        {"saturating_NTk", "g x/(1+x), ln x = a + b ln N + c ln T + d ln k", {-0.7, 0, -1, 1, 0}, free_law},
        {"saturating_N", "g x/(1+x), ln x = a + b ln N", {-0.7, 0, -1}, samples_law},
        {"published_saturating",
         "g x/(1+x), ln x = a + ln of the published index squared",
         {-0.7, 4},
         published_saturating},
        {"published", "c sqrt(k (1 + ln(T/k)) / N)", {0}, published_shape},
        {"published_linear", "c sqrt(T (2k (1 + ln(T/k)) + ln 2N) / N)", {0}, published_linear},
        {"sqrt_T_over_N", "c sqrt(T / N)", {0}, experts_shape},
        {"sqrt_T_over_kN", "c sqrt(T / (k N))", {0}, active_share_shape},
    };
    return table;
}

const GapLaw& gap_law(std::string_view name) {
    const auto found = std::ranges::find(gap_laws(), name, &GapLaw::name);
    MOESAIC_ASSERT(found != gap_laws().end(), "no law {}", name);
    return *found;
}

double published_index(const GapCell& at) {
    return std::sqrt(at.top_k * (1 + std::log(at.experts / at.top_k)) / at.samples);
}

std::vector<double> fit_gap_law(const GapLaw& law, std::span<const GapCell> cells) {
    const auto residuals = [&](const Parameters& parameters) {
        std::vector<double> list;
        for (const GapCell& cell : cells) {
            const double scale = std::hypot(cell.gap_deviation, 0.15 * cell.gap);
            list.push_back((law.predict(parameters, cell) - cell.gap) / std::max(scale, 1e-6));
        }
        // A weak pull towards the start: data that say nothing of a parameter leave it there.
        for (std::size_t i = 0; i < parameters.size(); ++i)
            list.push_back(1e-3 * (parameters[i] - law.start[i]));
        return list;
    };
    return robust_least_squares(residuals, law.start);
}

LawScore leave_one_out(const GapLaw& law, std::span<const GapCell> cells) {
    std::vector<double> predicted, measured;
    for (const Group& group : groups_of(cells)) {
        const std::vector<GapCell> others = without(cells, group);
        if (others.empty()) continue;
        const Parameters parameters = fit_gap_law(law, others);
        for (const GapCell& cell : cells) {
            if (group_of(cell) != group) continue;
            predicted.push_back(law.predict(parameters, cell));
            measured.push_back(cell.gap);
        }
    }
    return score(predicted, measured);
}

std::optional<LawScore> extrapolate(const GapLaw& law, std::span<const GapCell> cells,
                                    bool (*is_training)(const GapCell&, std::span<const GapCell>)) {
    std::vector<GapCell> training, test;
    for (const GapCell& cell : cells) (is_training(cell, cells) ? training : test).push_back(cell);
    if (training.size() < 2 || test.size() < 2) return std::nullopt;
    const Parameters parameters = fit_gap_law(law, training);
    std::vector<double> predicted, measured;
    for (const GapCell& cell : test) {
        predicted.push_back(law.predict(parameters, cell));
        measured.push_back(cell.gap);
    }
    return score(predicted, measured);
}

GapPrediction predict_gap(const GapLaw& law, std::span<const GapCell> cells, const GapCell& at,
                          double alpha) {
    return predictions(law, cells, std::span(&at, 1), alpha).front();
}

double interval_coverage(const GapLaw& law, std::span<const GapCell> cells, double alpha) {
    double covered = 0, count = 0;
    for (const Group& group : groups_of(cells)) {
        const std::vector<GapCell> others = without(cells, group);
        if (groups_of(others).size() < 2) continue;
        std::vector<GapCell> left_out;
        for (const GapCell& cell : cells)
            if (group_of(cell) == group) left_out.push_back(cell);
        const std::vector<GapPrediction> foretold = predictions(law, others, left_out, alpha);
        for (std::size_t i = 0; i < left_out.size(); ++i) {
            covered += foretold[i].low <= left_out[i].gap && left_out[i].gap <= foretold[i].high ? 1 : 0;
            ++count;
        }
    }
    return count > 0 ? covered / count : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace moesaic
