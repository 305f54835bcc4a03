#include "launch/study/claims.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "launch/study/claim_kinds.h"
#include "launch/study/claim_options.h"

namespace moesaic {

namespace {

std::vector<std::string> words_of(std::string_view text) {
    std::istringstream stream{std::string(text)};
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    return words;
}

/// "first.KEY" belongs to the option "first".
std::string head_of(const std::string& option) {
    return option.substr(0, option.find('.'));
}

/// Columns that the claim names and no row has, and those that there are; empty where nothing is amiss.
std::string unknown_columns(const StudyClaim& claim, const StudyTable& table) {
    std::vector<std::string> named = claim_columns(claim), unknown;
    for (const auto& [option, value] : claim.options)
        if (const std::size_t point = option.find('.'); point != std::string::npos)
            named.push_back(option.substr(point + 1));
    for (const std::string& column : named) {
        const bool somewhere =
            std::ranges::any_of(table.rows, [&](const StudyRow& row) { return row.contains(column); });
        if (somewhere) continue;
        const std::string near = nearest_name(column, table.columns);
        unknown.push_back(near.empty() ? column : fmt::format("{} (did you mean '{}'?)", column, near));
    }
    if (unknown.empty()) return "";
    return fmt::format("claims.{}: no run has a column {}; there are: {}", claim.name,
                       fmt::join(unknown, ", "), fmt::join(table.columns, ", "));
}

/// Of the cell that has the fewest.
long fewest_seeds(const StudyTable& table, const std::vector<const StudyRow*>& rows) {
    std::size_t fewest = rows.size();
    for (const StudyGroup& group : groups_of(table, rows)) {
        std::set<std::string> seeds;
        for (const StudyRow* row : group.rows)
            if (const auto seed = row->find("seed"); seed != row->end()) seeds.insert(seed->second);
        fewest = std::min(fewest, seeds.size());
    }
    return static_cast<long>(fewest);
}

const ClaimKind* find_kind(std::string_view name) {
    const auto kinds = claim_kinds();
    const auto found = std::ranges::find(kinds, name, &ClaimKind::name);
    return found == kinds.end() ? nullptr : &*found;
}

}  // namespace

std::string_view name_of(Verdict verdict) {
    constexpr std::string_view kNames[] = {"reproduced", "not reproduced", "inconclusive"};
    return kNames[static_cast<std::size_t>(verdict)];
}

double claim_number(const StudyClaim& claim, const std::string& option, double otherwise) {
    const auto found = claim.options.find(option);
    if (found == claim.options.end()) return otherwise;
    if (found->second == "inf" || found->second == "-inf")
        return found->second == "inf" ? kUnlimited : -kUnlimited;
    const auto number = number_in({{option, found->second}}, option);
    if (!number)
        throw UserError(fmt::format("{}: claims.{}.{}: '{}' is not a number", claim.where, claim.name, option,
                                    found->second));
    return *number;
}

std::string claim_text(const StudyClaim& claim, const std::string& option) {
    const auto found = claim.options.find(option);
    return found == claim.options.end() ? "" : found->second;
}

std::vector<std::string> split_list(const std::string& text) {
    std::istringstream stream(text);
    std::vector<std::string> names;
    for (std::string name; std::getline(stream, name, ',');) {
        const std::size_t first = name.find_first_not_of(" ["), last = name.find_last_not_of(" ]");
        if (first != std::string::npos) names.push_back(name.substr(first, last - first + 1));
    }
    return names;
}

std::vector<std::string> claim_columns(const StudyClaim& claim) {
    std::vector<std::string> columns;
    for (const char* option : {"of", "with", "above", "over", "by", "against", "samples", "experts", "top_k"})
        for (const std::string& column : split_list(claim_text(claim, option))) columns.push_back(column);
    return columns;
}

std::optional<bool> lies_at(const StudyClaim& claim, const std::string& side, const StudyRow& row) {
    std::optional<bool> answer = true;
    for (const auto& [option, condition] : claim.options) {
        if (!option.starts_with(side + ".")) continue;
        const auto value = row.find(option.substr(side.size() + 1));
        if (value == row.end()) {
            answer.reset();
        } else if (!meets(value->second, condition)) {
            return false;
        }
    }
    return answer;
}

bool meets(const std::string& value, const std::string& condition) {
    const auto number = [](const std::string& text) {
        return number_in({{"", text}}, "").value_or(std::nan(""));
    };
    for (const char* comparison : {">=", "<=", ">", "<"}) {
        if (!condition.starts_with(comparison)) continue;
        const std::size_t length = std::string_view(comparison).size();
        const std::size_t start = std::min(condition.find_first_not_of(' ', length), condition.size());
        const double left = number(value), right = number(condition.substr(start));  // NaN meets nothing
        if (length == 2) return comparison[0] == '>' ? left >= right : left <= right;
        return comparison[0] == '>' ? left > right : left < right;
    }
    const double left = number(value), right = number(condition);
    return std::isfinite(left) && std::isfinite(right) ? left == right : value == condition;
}

std::vector<double> numbers_of(const std::vector<const StudyRow*>& rows, const std::string& column) {
    std::vector<double> numbers;
    for (const StudyRow* row : rows)
        if (const auto number = number_in(*row, column)) numbers.push_back(*number);
    return numbers;
}

Verdict verdict_of(double interval_low, double interval_high, double low, double high) {
    if (interval_low >= low && interval_high <= high) return Verdict::reproduced;
    if (interval_low > high || interval_high < low) return Verdict::not_reproduced;
    return Verdict::inconclusive;
}

ClaimRows rows_of(const StudyClaim& claim, const StudyTable& table) {
    const std::vector<std::string> columns = claim_columns(claim);
    const bool sided = std::ranges::any_of(
        claim.options, [](const auto& option) { return option.first.starts_with("first."); });
    ClaimRows rows;
    for (const StudyRow& row : table.rows) {
        const auto status = row.find("status");
        const bool failed = status != row.end() && status->second != "done";
        const std::optional<bool> spoken_of = lies_at(claim, "where", row);
        if (!spoken_of.value_or(failed)) continue;
        if (sided && lies_at(claim, "first", row) != true && lies_at(claim, "second", row) != true) continue;
        const bool complete = spoken_of.has_value() && std::ranges::all_of(columns, [&](const auto& column) {
                                  return number_in(row, column).has_value();
                              });
        if (complete) {
            rows.complete.push_back(&row);
        } else {
            ++rows.missing;
        }
    }
    return rows;
}

std::span<const ClaimKind> claim_kinds() {
    static const std::vector<ClaimKind> table{
        {"slope",
         "log-log slope of `of` against the first of `against` lies in [low, high]; 90 % bootstrap over "
         "cells",
         "of against", "low high", true, judge_slope},
        {"difference",
         "`of` at `first` minus at `second`, paired by seed and the other axes, is `expect`: greater or less",
         "of first second expect", "smallest", false, judge_difference},
        {"ratio",
         "the geometric mean of `of` at `first` over `second`, paired by seed and the other axes, lies in "
         "[low, high]",
         "of first second", "low high", false, judge_ratio},
        {"exceeds", "the share of rows with `of` above `above` lies in [share_low, share_high]", "of above",
         "share_low share_high", true, judge_exceeds},
        {"agrees", "cell by cell the mean of `of` is that of `with` to the relative `tolerance`",
         "of with tolerance", "", true, judge_agrees},
        {"rank_correlation", "Spearman's correlation of cell means of `of` and `with` is at least `at_least`",
         "of with at_least", "", true, judge_rank_correlation},
        {"optimum", "the `over` with the least `of` rises with `by`, tested by pairs of seeds", "of over by",
         "", false, judge_optimum},
        {"predictor", "the gap law in N, T, k foretells left-out cells better than its baselines",
         "of samples experts top_k", "", true, judge_predictor},
    };
    return table;
}

void check_claims(const StudyConfig& study, Diagnostics& diagnostics) {
    std::vector<std::string> names;
    for (const ClaimKind& kind : claim_kinds()) names.emplace_back(kind.name);
    for (const StudyClaim& claim : study.claims) {
        const std::string key = "claims." + claim.name;
        const ClaimKind* const kind = find_kind(claim.kind);
        if (!kind) {
            const std::string near = nearest_name(claim.kind, names);
            diagnostics.add({claim.where, key, fmt::format("'{}' is no kind of claim", claim.kind),
                             near.empty() ? fmt::format("one of: {}", fmt::join(names, ", "))
                                          : fmt::format("did you mean '{}'?", near)});
            continue;
        }
        const std::vector<std::string> needs = words_of(kind->needs);
        std::vector<std::string> known = words_of(kind->takes);
        known.insert(known.end(), needs.begin(), needs.end());
        known.emplace_back("where");
        for (const std::string& need : needs)
            if (std::ranges::none_of(claim.options,
                                     [&](const auto& option) { return head_of(option.first) == need; }))
                diagnostics.add({claim.where, key + "." + need, "is missing",
                                 fmt::format("a {} claim has: {}", kind->name, kind->needs)});
        for (const auto& [option, value] : claim.options)
            if (std::ranges::find(known, head_of(option)) == known.end())
                diagnostics.add({claim.where, key + "." + option, "is no option of this kind",
                                 fmt::format("known are: {}", fmt::join(known, ", "))});
    }
}

std::vector<std::string> columns_of(const std::vector<StudyClaim>& claims, const StudyTable& table) {
    const std::vector<std::string> axes = table.axes();
    std::vector<std::string> columns;
    for (const StudyClaim& claim : claims) {
        for (const char* option : {"of", "with", "above"}) {
            const std::string column = claim_text(claim, option);
            const auto known = [&](const std::vector<std::string>& list) {
                return std::ranges::find(list, column) != list.end();
            };
            if (table.has(column) && !known(axes) && !known(columns)) columns.push_back(column);
        }
    }
    return columns;
}

ClaimResult judge(const StudyClaim& claim, const StudyTable& table) {
    ClaimResult result;
    result.name = claim.name;
    result.kind = claim.kind;
    result.of = claim_text(claim, "of");
    result.statement = claim.statement;
    if (const std::string unknown = unknown_columns(claim, table); !unknown.empty()) {
        result.finding = unknown;
        return result;
    }
    const ClaimRows rows = rows_of(claim, table);
    const ClaimKind& kind = *find_kind(claim.kind);
    result.rows = static_cast<long>(rows.complete.size());
    result.missing = rows.missing;
    if (rows.complete.empty()) {
        result.finding = fmt::format("no run that it speaks of has a number for {}",
                                     fmt::join(claim_columns(claim), " and "));
    } else {
        kind.judge(claim, table, rows.complete, result);
    }
    const long all = result.rows + result.missing, seeds = fewest_seeds(table, rows.complete);
    const bool few_seeds = kind.every_cell && seeds < kEnoughSeeds;
    if (result.missing > 0)
        result.finding += fmt::format("; {} of {} rows have no number", result.missing, all);
    if (few_seeds && result.rows > 0)
        result.finding += fmt::format("; {} seeds in a cell, of which {} are needed", seeds, kEnoughSeeds);
    if (few_seeds || too_many_lost(result.missing, all)) result.verdict = Verdict::inconclusive;
    return result;
}

}  // namespace moesaic
