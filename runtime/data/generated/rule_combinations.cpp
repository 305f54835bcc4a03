#include "runtime/data/generated/rule_combinations.h"

#include <cmath>

#include "runtime/base/error.h"
#include "runtime/data/permutation.h"

namespace moesaic {

namespace {

void append_multisets(int rules, int size, std::vector<int>& prefix, std::vector<std::vector<int>>& all) {
    if (static_cast<int>(prefix.size()) == size) {
        all.push_back(prefix);
        return;
    }
    for (int rule = prefix.empty() ? 0 : prefix.back(); rule < rules; ++rule) {
        prefix.push_back(rule);
        append_multisets(rules, size, prefix, all);
        prefix.pop_back();
    }
}

}  // namespace

RuleCombinations split_combinations(int rules, int size, double held_out, u64 seed) {
    std::vector<std::vector<int>> all;
    std::vector<int> prefix;
    append_multisets(rules, size, prefix, all);
    const auto count = std::ssize(all);
    const auto kept_back = static_cast<i64>(std::floor(held_out * static_cast<double>(count)));
    if (held_out > 0 && kept_back == 0)
        throw UserError(
            fmt::format("held_out: {} of {} combinations is none; a larger share, or 0", held_out, count));
    const KeyedPermutation order(count, seed, "combinations");
    RuleCombinations split;
    std::vector<bool> occurs(static_cast<std::size_t>(rules), false);
    for (i64 i = 0; i < count; ++i) {
        const std::vector<int>& one = all[static_cast<std::size_t>(order(i))];
        (i < kept_back ? split.held_out : split.trained).push_back(one);
        if (i < kept_back) continue;
        for (const int rule : one) occurs[static_cast<std::size_t>(rule)] = true;
    }
    for (int rule = 0; rule < rules; ++rule) {
        if (!occurs[static_cast<std::size_t>(rule)])
            throw UserError(
                fmt::format("held_out: with split_seed {} rule {} occurs in no trained combination; "
                            "another split_seed, a smaller share, or more rules at once",
                            seed, rule));
    }
    return split;
}

}  // namespace moesaic
