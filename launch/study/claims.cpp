#include "launch/study/claims.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
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

std::vector<const StudyRow*> rows_of(const StudyClaim& claim, const StudyTable& table) {
    constexpr std::string_view kWhere = "where.";
    std::vector<const StudyRow*> rows;
    for (const StudyRow& row : table.rows) {
        const bool wanted = std::ranges::all_of(claim.options, [&](const auto& option) {
            if (!option.first.starts_with(kWhere)) return true;
            const auto value = row.find(option.first.substr(kWhere.size()));
            return value != row.end() && meets(value->second, option.second);
        });
        if (wanted) rows.push_back(&row);
    }
    return rows;
}

std::span<const ClaimKind> claim_kinds() {
    static const std::vector<ClaimKind> table{
        {"slope",
         "log-log slope of `of` against the first of `against` lies in [low, high]; 90 % bootstrap over "
         "cells",
         "of against", "low high", judge_slope},
        {"difference",
         "`of` at `first` minus at `second`, paired by seed and the other axes, is `expect`: greater or less",
         "of first second expect", "smallest", judge_difference},
        {"ratio",
         "the geometric mean of `of` at `first` over `second`, paired by seed and the other axes, lies in "
         "[low, high]",
         "of first second", "low high", judge_ratio},
        {"exceeds", "the share of rows with `of` above `above` lies in [share_low, share_high]", "of above",
         "share_low share_high", judge_exceeds},
        {"agrees", "cell by cell the mean of `of` is that of `with` to the relative `tolerance`",
         "of with tolerance", "", judge_agrees},
        {"rank_correlation", "Spearman's correlation of cell means of `of` and `with` is at least `at_least`",
         "of with at_least", "", judge_rank_correlation},
        {"optimum", "the `over` with the least `of` rises with `by`, tested by pairs of seeds", "of over by",
         "", judge_optimum},
        {"predictor", "the gap law in N, T, k foretells left-out cells better than its baselines",
         "of samples experts top_k", "", judge_predictor},
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
    std::vector<const StudyRow*> rows = rows_of(claim, table);
    std::erase_if(rows, [&](const StudyRow* row) { return !number_in(*row, claim_text(claim, "of")); });
    result.rows = static_cast<long>(rows.size());
    if (rows.empty()) {
        result.finding = fmt::format("no run that it speaks of has a number for {}", claim_text(claim, "of"));
        return result;
    }
    find_kind(claim.kind)->judge(claim, table, rows, result);
    return result;
}

}  // namespace moesaic
