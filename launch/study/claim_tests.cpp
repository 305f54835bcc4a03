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

/// Numbers of `of` at `first` and at `second`, of one seed and one place on the other axes.
struct Pair {
    std::string seed;
    double first = 0, second = 0;
};
struct Pairs {
    std::vector<Pair> list;
    long lost = 0;  ///< pairs of runs of which one has no number
};
Pairs pairs_of(const StudyClaim& claim, const StudyTable& table) {
    const std::string column = claim_text(claim, "of");
    std::map<StudyRow, std::optional<double>> firsts, seconds;
    for (const StudyRow& row : table.rows) {
        if (lies_at(claim, "where", row) != true) continue;
        for (auto [side, numbers] : {std::pair("first", &firsts), std::pair("second", &seconds)})
            if (lies_at(claim, side, row) == true)
                (*numbers)[partner_key(claim, table, row)] = number_in(row, column);
    }
    Pairs pairs;
    for (const auto& [key, value] : firsts) {
        const auto partner = seconds.find(key);
        if (partner == seconds.end()) continue;
        if (value && partner->second) {
            const auto seed = key.find("seed");
            pairs.list.push_back({seed == key.end() ? "" : seed->second, *value, *partner->second});
        } else {
            ++pairs.lost;
        }
    }
    return pairs;
}

/// One pair a seed, the mean over its places on the other axes: runs of a seed share what it draws, and are
/// not so many observations. The test is of `scale` of the numbers.
PairedTest test_by_seed(const Pairs& pairs, double (*scale)(double)) {
    std::map<std::string, std::pair<std::vector<double>, std::vector<double>>> seeds;
    for (const Pair& pair : pairs.list) {
        seeds[pair.seed].first.push_back(scale(pair.first));
        seeds[pair.seed].second.push_back(scale(pair.second));
    }
    std::vector<double> first, second;
    for (const auto& [seed, numbers] : seeds) {
        first.push_back(mean_of(numbers.first));
        second.push_back(mean_of(numbers.second));
    }
    return first.empty() ? PairedTest() : paired_test(first, second, kAlpha);
}

/// What keeps a test by pairs from a verdict, in words; empty where nothing does.
std::string hold_back(const Pairs& pairs, const PairedTest& test, ClaimResult& result) {
    const auto all = static_cast<long>(pairs.list.size()) + pairs.lost;
    if (test.pairs < kEnoughSeeds || too_many_lost(pairs.lost, all)) result.verdict = Verdict::inconclusive;
    std::string words;
    if (pairs.lost > 0) words += fmt::format("; {} of {} pairs have no number", pairs.lost, all);
    if (test.pairs < kEnoughSeeds) words += fmt::format("; {} seeds are needed", kEnoughSeeds);
    return words;
}

void tell_test(const PairedTest& test, ClaimResult& result) {
    result.estimate = test.difference;
    result.low = test.low;
    result.high = test.high;
    result.p = test.p;
    result.smallest_detectable = test.smallest_detectable;
}

}  // namespace

void judge_difference(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>&,
                      ClaimResult& result) {
    const std::string column = claim_text(claim, "of"), expected = claim_text(claim, "expect");
    if (expected != "less" && expected != "greater")
        throw UserError(fmt::format("{}: claims.{}.expect: '{}' is unknown; less or greater", claim.where,
                                    claim.name, expected));
    const Pairs pairs = pairs_of(claim, table);
    const PairedTest test = test_by_seed(pairs, [](double value) { return value; });
    if (test.pairs < 2) {
        result.finding = fmt::format("pairs of {} seeds are too few for a test", test.pairs);
        return;
    }
    tell_test(test, result);
    const double smallest = claim_number(claim, "smallest", 0);
    const double sign = expected == "greater" ? 1 : -1;
    const double low = std::min(sign * test.low, sign * test.high),
                 high = std::max(sign * test.low, sign * test.high);
    if (low > 0) result.verdict = Verdict::reproduced;
    if (high < smallest || high < 0) result.verdict = Verdict::not_reproduced;
    const std::string withheld = hold_back(pairs, test, result);
    result.finding = fmt::format(
        "{}: mean difference {:.4g} [{:.4g}, {:.4g}] (95 %), p {:.3g}, {} pairs of {} seeds; {:.3g} could "
        "have been seen; expected {}{}",
        column, test.difference, test.low, test.high, test.p, pairs.list.size(), test.pairs,
        test.smallest_detectable, expected, withheld);
}

void judge_ratio(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>&,
                 ClaimResult& result) {
    const Pairs pairs = pairs_of(claim, table);
    const bool positive =
        std::ranges::all_of(pairs.list, [](const Pair& pair) { return pair.first > 0 && pair.second > 0; });
    const PairedTest test =
        positive ? test_by_seed(pairs, [](double value) { return std::log(value); }) : PairedTest();
    if (test.pairs < 2) {
        result.finding = positive
                             ? fmt::format("pairs of {} seeds are too few for a test", test.pairs)
                             : fmt::format("{} has numbers that are not positive", claim_text(claim, "of"));
        return;
    }
    const double low = claim_number(claim, "low", 0), high = claim_number(claim, "high", kUnlimited);
    result.estimate = std::exp(test.difference);
    result.low = std::exp(test.low);
    result.high = std::exp(test.high);
    result.p = test.p;
    result.smallest_detectable = std::exp(test.smallest_detectable);
    result.verdict = verdict_of(*result.low, *result.high, low, high);
    const std::string withheld = hold_back(pairs, test, result);
    result.finding = fmt::format(
        "{}: geometric mean of ratios {:.4g} [{:.4g}, {:.4g}] (95 %), {} pairs of {} seeds; a factor {:.4g} "
        "could have been told from 1; expected [{}, {}]{}",
        claim_text(claim, "of"), *result.estimate, *result.low, *result.high, pairs.list.size(), test.pairs,
        *result.smallest_detectable, low, high, withheld);
}

void judge_exceeds(const StudyClaim& claim, const StudyTable&, const std::vector<const StudyRow*>& rows,
                   ClaimResult& result) {
    const std::string of = claim_text(claim, "of"), above = claim_text(claim, "above");
    double exceeded = 0;
    const auto count = static_cast<double>(rows.size());
    for (const StudyRow* row : rows) exceeded += *number_in(*row, of) > *number_in(*row, above) ? 1 : 0;
    const double low = claim_number(claim, "share_low", 0), high = claim_number(claim, "share_high", 1);
    result.estimate = exceeded / count;
    // Clopper and Pearson, 95 % two-sided.
    result.low = 1 - clopper_pearson_upper(count - exceeded, count, 0.025);
    result.high = clopper_pearson_upper(exceeded, count, 0.025);
    result.verdict =
        low <= *result.estimate && *result.estimate <= high ? Verdict::reproduced : Verdict::not_reproduced;
    result.finding = fmt::format(
        "{} above {} in {:.0f} of {:.0f} rows (share {:.3g}, 95 % [{:.3g}, {:.3g}]); expected [{}, {}]", of,
        above, exceeded, count, *result.estimate, *result.low, *result.high, low, high);
}

void judge_agrees(const StudyClaim& claim, const StudyTable& table, const std::vector<const StudyRow*>& rows,
                  ClaimResult& result) {
    const double tolerance = claim_number(claim, "tolerance", 0);
    double worst = 0, largest_error = 0;
    long compared = 0, zero = 0;
    bool contradicted = false;
    std::string worst_cell;
    for (const StudyGroup& group : groups_of(table, rows)) {
        const std::vector<double> x = numbers_of(group.rows, claim_text(claim, "of"));
        const std::vector<double> y = numbers_of(group.rows, claim_text(claim, "with"));
        if (mean_of(y) == 0) {
            ++zero;
            continue;
        }
        ++compared;
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
    if (compared > 0) result.estimate = worst;
    // One run has no standard error, and a mean of 0 no relative difference: neither is agreement.
    if (compared > 0 && zero == 0 && worst <= tolerance && largest_error <= tolerance)
        result.verdict = Verdict::reproduced;
    if (contradicted) result.verdict = Verdict::not_reproduced;
    result.finding = fmt::format(
        "largest relative difference of means {:.3g} (at{}), largest standard error {:.3g}, {} cells{}; "
        "expected at most {}",
        worst, worst_cell, largest_error, compared,
        zero > 0 ? fmt::format(", {} more with a mean of 0 that nothing is relative to", zero) : "",
        tolerance);
}

void judge_optimum(const StudyClaim& claim, const StudyTable&, const std::vector<const StudyRow*>& rows,
                   ClaimResult& result) {
    const std::string of = claim_text(claim, "of"), over = claim_text(claim, "over"),
                      by = claim_text(claim, "by");
    // By `by`: the best `over` of each seed, and of the means over seeds.
    struct Best {
        double least = 0, place = 0;
        std::size_t places = 0;  // that the seed has numbers at
    };
    std::map<double, std::map<std::string, Best>> best;
    std::map<double, std::map<double, std::vector<double>>> values;  // over -> of
    for (const StudyRow* row : rows) {
        const auto place = number_in(*row, over), difficulty = number_in(*row, by);
        const double value = *number_in(*row, of);
        values[*difficulty][*place].push_back(value);
        Best& known = best[*difficulty][row->at("seed")];
        if (known.places == 0 || value < known.least) known = {value, *place, known.places};
        ++known.places;
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
        // The least of a few places is not the least of all.
        if (partner == best.rbegin()->second.end() || optimum.places < values.begin()->second.size() ||
            partner->second.places < values.rbegin()->second.size())
            continue;
        easy.push_back(optimum.place);
        hard.push_back(partner->second.place);
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
