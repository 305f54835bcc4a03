#include "launch/study/gap_prediction.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "launch/study/claim_options.h"
#include "runtime/base/error.h"
#include "runtime/metrics/statistics/summary.h"

namespace moesaic {

namespace {

std::string interval_text(const GapPrediction& prediction) {
    return fmt::format("{:.3g} [{:.3g}, {:.3g}]", prediction.gap, prediction.low, prediction.high);
}

std::string table_text(const StudyClaim& claim, std::span<const GapCell> cells,
                       const std::vector<GapCell>& places) {
    std::string text = fmt::format("{:>8}{:>7}{:>10}  {:<26}{:<26}{}\n", "experts", "top_k", "samples",
                                   claim_text(claim, "of"), "by the index alone", "index");
    for (const GapCell& place : places) {
        const ForetoldGap foretold = foretell(claim, cells, place);
        text +=
            fmt::format("{:>8}{:>7}{:>10}  {:<26}{:<26}{:.4g}{}\n", place.experts, place.top_k, place.samples,
                        interval_text(foretold.law), interval_text(foretold.by_index), foretold.index,
                        foretold.law.in_hull ? "" : "  beyond what was measured: no promise");
    }
    return text;
}

std::string claim_prediction(const StudyConfig& study, const StudyClaim& claim, const StudyTable& table,
                             const std::vector<GapCell>& places) {
    const std::vector<GapCell> cells = gap_cells(claim, table);
    if (!enough_to_fit(cells))
        throw UserError(
            fmt::format("{}: claims.{}: {} cells of {} (experts, top_k) pairs have a number for {}; a law is "
                        "fitted to 6 cells of 4 pairs at least, and its intervals want {} pairs: {}",
                        study.name, claim.name, cells.size(), pair_count(cells), claim_text(claim, "of"),
                        kEnoughPairs, "run the study at its full size, or widen its grid"));
    std::string text = fmt::format("{}: {} from {} cells of {} (experts, top_k) pairs; claim {}: {}\n",
                                   study.name, claim_text(claim, "of"), cells.size(), pair_count(cells),
                                   claim.name, name_of(judge(claim, table).verdict));
    text += table_text(claim, cells, places);
    text += fitted_law(cells) + "\n";
    text +=
        fmt::format("index: sqrt(k (1 + ln(T/k)) / N) of arXiv 2403.17404; by it alone: gap = {:.3g} index\n",
                    std::exp(fit_gap_law(gap_law("published"), cells)[0]));
    text += fmt::format(
        "intervals: jackknife+ over (experts, top_k) pairs; they promise to cover {:g} % of the mean gaps of "
        "pairs that could as well be among those measured{}\n",
        100 * (1 - 2 * kPredictionAlpha),
        pair_count(cells) < kEnoughPairs ? fmt::format(", if those were {} or more", kEnoughPairs) : "");
    return text;
}

}  // namespace

std::vector<GapCell> gap_cells(const StudyClaim& claim, const StudyTable& table) {
    std::vector<GapCell> cells;
    for (const StudyGroup& group : groups_of(table, rows_of(claim, table).complete)) {
        const std::vector<double> gaps = numbers_of(group.rows, claim_text(claim, "of"));
        const auto axis = [&](const char* option) {
            return *number_in(*group.rows.front(), claim_text(claim, option));
        };
        const double error = deviation_of(gaps) / std::sqrt(static_cast<double>(gaps.size()));
        const GapCell cell{axis("samples"), axis("experts"), axis("top_k"), mean_of(gaps), error};
        if (std::min({cell.samples, cell.experts, cell.top_k}) > 0)
            cells.push_back(cell);  // else no logarithm
    }
    return cells;
}

std::size_t pair_count(std::span<const GapCell> cells) {
    std::set<std::pair<double, double>> pairs;
    for (const GapCell& cell : cells) pairs.emplace(cell.experts, cell.top_k);
    return pairs.size();
}

bool enough_to_fit(std::span<const GapCell> cells) {
    return pair_count(cells) >= 4 && cells.size() >= 6;
}

std::string fitted_law(std::span<const GapCell> cells) {
    const std::vector<double> p = fit_gap_law(gap_laws().front(), cells);
    return fmt::format(
        "fitted to all: gap = g x/(1+x), g {:.3f}, ln x = {:.2f} {:+.2f} ln(N/1000) {:+.2f} ln(T/8) "
        "{:+.2f} ln(k/2)",
        std::exp(p[0]), p[1], p[2], p[3], p[4]);
}

ForetoldGap foretell(const StudyClaim& claim, std::span<const GapCell> cells, const GapCell& at) {
    return {claim.name, at, published_index(at), predict_gap(gap_laws().front(), cells, at, kPredictionAlpha),
            predict_gap(gap_law("published"), cells, at, kPredictionAlpha)};
}

std::vector<GapCell> next_places(std::span<const GapCell> cells) {
    const double samples = std::ranges::max(cells, {}, &GapCell::samples).samples,
                 experts = std::ranges::max(cells, {}, &GapCell::experts).experts;
    const auto [least, most] = std::ranges::minmax(cells, {}, &GapCell::top_k);
    std::vector<GapCell> places;
    for (const double top_k : std::set<double>{least.top_k, most.top_k})
        for (const auto& [more_experts, more_samples] : {std::pair(2, 1), std::pair(1, 2), std::pair(2, 2)})
            places.push_back({more_samples * samples, more_experts * experts, top_k});
    return places;
}

GapCell place_of(const std::string& text) {
    constexpr std::pair<const char*, double GapCell::*> kKeys[] = {
        {"experts", &GapCell::experts}, {"top_k", &GapCell::top_k}, {"samples", &GapCell::samples}};
    StudyRow given;
    std::vector<std::string> mistakes;
    for (const std::string& part : split_list(text)) {
        const std::size_t equals = part.find('=');
        const std::string key = part.substr(0, equals);
        if (std::ranges::find(kKeys, key, [](const auto& known) { return std::string(known.first); }) ==
            std::end(kKeys))
            mistakes.push_back(fmt::format("'{}' is none of experts, top_k, samples", key));
        given[key] = equals == std::string::npos ? "" : part.substr(equals + 1);
    }
    GapCell place;
    for (const auto& [key, member] : kKeys) {
        const auto number = number_in(given, key);
        if (!number || *number < 1)
            mistakes.push_back(
                fmt::format("{} is {}", key, given.contains(key) ? "no number of 1 or more" : "missing"));
        place.*member = number.value_or(1);
    }
    if (mistakes.empty() && place.top_k > place.experts)
        mistakes.push_back(fmt::format("{} of {} experts cannot be active", place.top_k, place.experts));
    if (!mistakes.empty())
        throw UserError(fmt::format("--predict {}: {}; e.g. --predict experts=64,top_k=2,samples=8000", text,
                                    fmt::join(mistakes, ", ")));
    return place;
}

std::string prediction_text(const StudyConfig& study, const StudyTable& table,
                            const std::vector<std::string>& places) {
    std::vector<GapCell> asked;
    for (const std::string& place : places) asked.push_back(place_of(place));
    std::string text;
    for (const StudyClaim& claim : study.claims)
        if (claim.kind == "predictor")
            text += (text.empty() ? "" : "\n") + claim_prediction(study, claim, table, asked);
    if (text.empty())
        throw UserError(
            fmt::format("{}: has no claim of kind predictor, which says what the columns of samples, experts "
                        "and top_k are; configs/studies/gap_law.yaml has one to copy",
                        study.file));
    return text;
}

}  // namespace moesaic
