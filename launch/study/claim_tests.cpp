// Claims about single comparisons: differences by pairs, shares of rows, agreement, optima that move.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "launch/study/claim_kinds.h"
#include "launch/study/claim_options.h"
#include "runtime/metrics/bounds/divergence.h"

namespace moesaic {

namespace {

constexpr double kAlpha = 0.05;

/// Whether the row lies where the options "side.KEY" say.
bool lies_at(const StudyClaim& claim, const std::string& side, const StudyRow& row) {
    return std::ranges::all_of(claim.options, [&](const auto& option) {
        if (!option.first.starts_with(side + ".")) return true;
        const auto value = row.find(option.first.substr(side.size() + 1));
        return value != row.end() && meets(value->second, option.second);
    });
}

/// Seed and axes of a row but for the keys that tell `first` from `second`.
StudyRow partner_key(const StudyClaim& claim, const StudyTable& table, const StudyRow& row) {
    StudyRow key;
    std::vector<std::string> columns = table.axes();
    columns.emplace_back("seed");
    for (const std::string& column : columns) {
        if (claim.options.contains("first." + column) || claim.options.contains("second." + column)) continue;
        if (const auto found = row.find(column); found != row.end()) key.insert(*found);
    }
    return key;
}

/// Numbers of `of` at `first` and at `second`, in pairs of one seed and one place on the other axes.
std::pair<std::vector<double>, std::vector<double>> pairs_of(const StudyClaim& claim, const StudyTable& table,
                                                             const std::vector<const StudyRow*>& rows) {
    const std::string column = claim_text(claim, "of");
    std::map<StudyRow, double> firsts, seconds;
    for (const StudyRow* row : rows) {
        if (lies_at(claim, "first", *row)) firsts[partner_key(claim, table, *row)] = *number_in(*row, column);
        if (lies_at(claim, "second", *row))
            seconds[partner_key(claim, table, *row)] = *number_in(*row, column);
    }
    std::pair<std::vector<double>, std::vector<double>> pairs;
    for (const auto& [key, value] : firsts) {
        const auto partner = seconds.find(key);
        if (partner == seconds.end()) continue;
        pairs.first.push_back(value);
        pairs.second.push_back(partner->second);
    }
    return pairs;
}

void tell_test(const PairedTest& test, ClaimResult& result) {
    result.estimate = test.difference;
    result.low = test.low;
    result.high = test.high;
    result.p = test.p;
    result.smallest_detectable = test.smallest_detectable;
}

}  // namespace

void judge_difference(const StudyClaim& claim, const StudyTable& table,
                      const std::vector<const StudyRow*>& rows, ClaimResult& result) {
    const std::string column = claim_text(claim, "of"), expected = claim_text(claim, "expect");
    if (expected != "less" && expected != "greater")
        throw UserError(fmt::format("{}: claims.{}.expect: '{}' is unknown; less or greater", claim.where,
                                    claim.name, expected));
    const auto [first, second] = pairs_of(claim, table, rows);
    if (first.size() < 2) {
        result.finding = fmt::format("{} pairs are too few for a test", first.size());
        return;
    }
    const PairedTest test = paired_test(first, second, kAlpha);
    tell_test(test, result);
    const double smallest = claim_number(claim, "smallest", 0);
    const double sign = expected == "greater" ? 1 : -1;
    const double low = std::min(sign * test.low, sign * test.high),
                 high = std::max(sign * test.low, sign * test.high);
    if (low > 0) result.verdict = Verdict::reproduced;
    if (high < smallest || high < 0) result.verdict = Verdict::not_reproduced;
    if (test.pairs < kEnoughSeeds) result.verdict = Verdict::inconclusive;
    result.finding = fmt::format(
        "{}: mean difference {:.4g} [{:.4g}, {:.4g}] (95 %), p {:.3g}, {} pairs; {:.3g} could have "
        "been seen; expected {}{}",
        column, test.difference, test.low, test.high, test.p, test.pairs, test.smallest_detectable, expected,
        test.pairs < kEnoughSeeds ? ", with 5 pairs or more" : "");
}

void judge_ratio(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                 ClaimResult& result) {
    auto [first, second] = pairs_of(claim, table, rows);
    const auto positive = [](double value) { return value > 0; };
    if (first.size() < 2 || !std::ranges::all_of(first, positive) || !std::ranges::all_of(second, positive)) {
        result.finding = fmt::format("{} pairs, all positive, are needed; here are {}", 2, first.size());
        return;
    }
    for (auto* side : {&first, &second})
        for (double& value : *side) value = std::log(value);
    const PairedTest test = paired_test(first, second, kAlpha);
    const double low = claim_number(claim, "low", 0), high = claim_number(claim, "high", kUnlimited);
    result.estimate = std::exp(test.difference);
    result.low = std::exp(test.low);
    result.high = std::exp(test.high);
    result.p = test.p;
    result.smallest_detectable = std::exp(test.smallest_detectable);
    result.verdict =
        test.pairs < kEnoughSeeds ? Verdict::inconclusive : verdict_of(*result.low, *result.high, low, high);
    result.finding = fmt::format(
        "{}: geometric mean of ratios {:.4g} [{:.4g}, {:.4g}] (95 %), {} pairs; a factor {:.4g} could have "
        "been "
        "told from 1; expected [{}, {}]{}",
        claim_text(claim, "of"), *result.estimate, *result.low, *result.high, test.pairs,
        *result.smallest_detectable, low, high, test.pairs < kEnoughSeeds ? ", with 5 pairs or more" : "");
}

void judge_exceeds(const StudyClaim& claim, const StudyTable&, const std::vector<const StudyRow*>& rows,
                   ClaimResult& result) {
    const std::string of = claim_text(claim, "of"), above = claim_text(claim, "above");
    double exceeded = 0, count = 0;
    for (const StudyRow* row : rows) {
        const auto limit = number_in(*row, above);
        if (!limit) continue;
        ++count;
        exceeded += *number_in(*row, of) > *limit ? 1 : 0;
    }
    if (count == 0) {
        result.finding = fmt::format("no run has a number for {}", above);
        return;
    }
    const double low = claim_number(claim, "share_low", 0), high = claim_number(claim, "share_high", 1);
    result.estimate = exceeded / count;
    // Clopper and Pearson, 95 % two-sided.
    result.low = 1 - clopper_pearson_upper(count - exceeded, count, 0.025);
    result.high = clopper_pearson_upper(exceeded, count, 0.025);
    result.verdict =
        low <= *result.estimate && *result.estimate <= high ? Verdict::reproduced : Verdict::not_reproduced;
    if (count < kEnoughSeeds) result.verdict = Verdict::inconclusive;
    result.finding = fmt::format(
        "{} above {} in {:.0f} of {:.0f} rows (share {:.3g}, 95 % [{:.3g}, {:.3g}]); expected [{}, {}]", of,
        above, exceeded, count, *result.estimate, *result.low, *result.high, low, high);
}

void judge_agrees(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                  ClaimResult& result) {
    const double tolerance = claim_number(claim, "tolerance", 0);
    double worst = 0, largest_error = 0;
    bool contradicted = false;
    std::string worst_cell;
    for (const StudyGroup& group : groups_of(table, rows)) {
        const std::vector<double> x = numbers_of(group.rows, claim_text(claim, "of"));
        const std::vector<double> y = numbers_of(group.rows, claim_text(claim, "with"));
        if (x.empty() || y.empty() || mean_of(y) == 0) continue;
        const double difference = std::abs(mean_of(x) / mean_of(y) - 1);
        const double error =
            deviation_of(x) / std::sqrt(static_cast<double>(x.size())) / std::abs(mean_of(y));
        largest_error = std::max(largest_error, error);
        contradicted = contradicted || (difference > tolerance && difference > 4 * error);
        if (difference < worst) continue;
        worst = difference;
        worst_cell.clear();
        for (const auto& [key, value] : group.point) worst_cell += fmt::format(" {}={}", key, value);
    }
    result.estimate = worst;
    if (worst <= tolerance && largest_error <= tolerance) result.verdict = Verdict::reproduced;
    if (contradicted) result.verdict = Verdict::not_reproduced;
    result.finding = fmt::format(
        "largest relative difference of means {:.3g} (at{}), largest standard error {:.3g}; expected "
        "at most {}",
        worst, worst_cell, largest_error, tolerance);
}

void judge_optimum(const StudyClaim& claim, const StudyTable&, const std::vector<const StudyRow*>& rows,
                   ClaimResult& result) {
    const std::string of = claim_text(claim, "of"), over = claim_text(claim, "over"),
                      by = claim_text(claim, "by");
    // By `by`: the best `over` of each seed, and of the means over seeds.
    std::map<double, std::map<std::string, std::pair<double, double>>> best;  // seed -> (least of, its over)
    std::map<double, std::map<double, std::vector<double>>> values;           // over -> of
    for (const StudyRow* row : rows) {
        const auto place = number_in(*row, over), difficulty = number_in(*row, by);
        if (!place || !difficulty) continue;
        const double value = *number_in(*row, of);
        values[*difficulty][*place].push_back(value);
        const auto [entry, fresh] = best[*difficulty].try_emplace(row->at("seed"), value, *place);
        if (!fresh && value < entry->second.first) entry->second = {value, *place};
    }
    const auto best_of_means = [](const std::map<double, std::vector<double>>& by_place) {
        return std::ranges::min_element(by_place, {}, [](const auto& entry) { return mean_of(entry.second); })
            ->first;
    };
    if (best.size() < 2) {
        result.finding = fmt::format("{} takes fewer than two values", by);
        return;
    }
    std::vector<double> easy, hard;
    for (const auto& [seed, optimum] : best.begin()->second) {
        const auto partner = best.rbegin()->second.find(seed);
        if (partner == best.rbegin()->second.end()) continue;
        easy.push_back(optimum.second);
        hard.push_back(partner->second.second);
    }
    if (easy.size() < 2) {
        result.finding = fmt::format("{} pairs are too few for a test", easy.size());
        return;
    }
    const PairedTest test = paired_test(hard, easy, kAlpha);
    tell_test(test, result);
    const double easy_mean = best_of_means(values.begin()->second),
                 hard_mean = best_of_means(values.rbegin()->second);
    if (test.low > 0 && hard_mean > easy_mean) result.verdict = Verdict::reproduced;
    if (test.high < 0) result.verdict = Verdict::not_reproduced;
    if (test.pairs < kEnoughSeeds) result.verdict = Verdict::inconclusive;
    result.finding = fmt::format(
        "best {} by the means over seeds: {} at {}={}, {} at {}={}; seed by seed {:.3g} and {:.3g}, "
        "difference "
        "{:.3g} [{:.3g}, {:.3g}] (95 %), p {:.3g}, {} pairs; {:.3g} could have been seen",
        over, easy_mean, by, best.begin()->first, hard_mean, by, best.rbegin()->first, mean_of(easy),
        mean_of(hard), test.difference, test.low, test.high, test.p, test.pairs, test.smallest_detectable);
}

}  // namespace moesaic
