// Uneven routings over several ranks, with the order of rows that the plan promises, found by plain sorting.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "comm/expert_placement.h"
#include "runtime/base/philox.h"
#include "runtime/base/types.h"

namespace moesaic {

/// One kept (token, choice).
struct RoutedRow {
    i64 expert = 0, source = 0, token = 0, choice = 0;
};

struct RoutingCase {
    std::string name;
    int ranks = 1, experts = 1;
    i64 choices = 1;
    std::vector<i64> tokens;               // [W]
    std::vector<std::vector<i32>> expert;  // [W][T*K]
    ExpertPlacement placement = contiguous_placement(experts);

    /// Where the expert lies.
    [[nodiscard]] i64 position(i64 number) const {
        return placement.position_of[static_cast<std::size_t>(number)];
    }
    [[nodiscard]] i64 local_experts() const { return experts / ranks; }
    [[nodiscard]] i64 receiver(const RoutedRow& row) const { return position(row.expert) / local_experts(); }
    /// Kept rows of all ranks by (position of the expert, source, token): grouped order, receiver after
    /// receiver.
    [[nodiscard]] std::vector<RoutedRow> grouped() const {
        std::vector<RoutedRow> rows;
        for (i64 source = 0; source < ranks; ++source) {
            const auto& mine = expert[static_cast<std::size_t>(source)];
            for (i64 i = 0; i < static_cast<i64>(mine.size()); ++i) {
                const i32 chosen = mine[static_cast<std::size_t>(i)];
                if (chosen >= 0) rows.push_back({chosen, source, i / choices, i % choices});
            }
        }
        std::ranges::sort(rows, {}, [this](const RoutedRow& row) {
            return std::tuple(position(row.expert), row.source, row.token);
        });
        return rows;
    }
    [[nodiscard]] std::vector<RoutedRow> sent_by(i64 source) const {
        std::vector<RoutedRow> rows = grouped();
        std::erase_if(rows, [&](const RoutedRow& row) { return row.source != source; });
        return rows;
    }
    [[nodiscard]] std::vector<RoutedRow> received_by(i64 rank) const {
        std::vector<RoutedRow> rows = grouped();
        std::erase_if(rows, [&](const RoutedRow& row) { return receiver(row) != rank; });
        return rows;
    }
    /// Which round of at most `capacity` rows carries each of received_by(rank). With `own_rows_first` rounds
    /// take an expert's rows of this rank first, then those of the next one, and so on around.
    [[nodiscard]] std::vector<i64> rounds_of(i64 rank, i64 capacity, bool own_rows_first) const {
        const std::vector<RoutedRow> rows = received_by(rank);
        std::vector<std::size_t> order(rows.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        if (own_rows_first)
            std::ranges::stable_sort(order, {}, [&](std::size_t i) {
                return std::pair(position(rows[i].expert), (rows[i].source - rank + ranks) % ranks);
            });
        std::vector<i64> rounds(rows.size());
        for (std::size_t i = 0; i < order.size(); ++i) rounds[order[i]] = static_cast<i64>(i) / capacity;
        return rounds;
    }
    /// A number that only this token of this rank has.
    [[nodiscard]] static double token_number(i64 source, i64 token) {
        return static_cast<double>(1 + source * 1000 + token);
    }
};

namespace detail {

/// Tokens choose `choices` different experts at random; a `drop` share of the choices is dropped, and nobody
/// chooses `avoided`.
inline std::vector<i32> random_choices(const RoutingCase& shape, i64 rank, double drop, i32 avoided) {
    const Philox random(7, shape.name + std::to_string(rank));
    std::vector<i32> chosen;
    u64 draws = 0;
    for (i64 token = 0; token < shape.tokens[static_cast<std::size_t>(rank)]; ++token) {
        std::vector<i32> free;
        for (i32 expert = 0; expert < shape.experts; ++expert) free.push_back(expert);
        for (i64 choice = 0; choice < shape.choices; ++choice) {
            const std::size_t pick = random.bits(draws++) % free.size();
            const i32 expert = free[pick];
            free.erase(free.begin() + static_cast<std::ptrdiff_t>(pick));
            chosen.push_back(random.uniform(draws++) < drop || expert == avoided ? -1 : expert);
        }
    }
    return chosen;
}

inline RoutingCase random_case(std::string name, int ranks, int experts, i64 choices, std::vector<i64> tokens,
                               double drop, i32 avoided) {
    RoutingCase one{
        std::move(name), ranks, experts, choices, std::move(tokens), {}, contiguous_placement(experts)};
    for (i64 rank = 0; rank < ranks; ++rank) one.expert.push_back(random_choices(one, rank, drop, avoided));
    return one;
}

}  // namespace detail

/// For `ranks` ranks: uneven tokens, a rank with none, an expert with none, drops, K = 1, K = E, all tokens
/// on one expert, one token in all, no token at all, everything dropped, experts in another order.
inline std::vector<RoutingCase> routing_cases(int ranks, int experts) {
    const auto world = static_cast<std::size_t>(ranks);
    std::vector<i64> uneven(world);
    for (std::size_t rank = 0; rank < world; ++rank) uneven[rank] = 3 + static_cast<i64>(rank * 5 % 7);
    if (world > 1) uneven[world / 2] = 0;
    std::vector<i64> lonely(world, 0), none(world, 0);
    lonely.back() = 1;
    const i64 several = std::min(2, experts);
    std::vector<RoutingCase> cases;
    cases.push_back(detail::random_case("uneven", ranks, experts, several, uneven, 0.0, experts / 2));
    cases.push_back(detail::random_case("drops", ranks, experts, several, uneven, 0.4, -1));
    cases.push_back(detail::random_case("one choice", ranks, experts, 1, uneven, 0.0, -1));
    cases.push_back(detail::random_case("every expert", ranks, experts, experts, uneven, 0.0, -1));
    cases.push_back(detail::random_case("all dropped", ranks, experts, several, uneven, 1.1, -1));
    cases.push_back(detail::random_case("one token", ranks, experts, several, lonely, 0.0, -1));
    cases.push_back(detail::random_case("no token", ranks, experts, several, none, 0.0, -1));
    RoutingCase crowded = detail::random_case("one expert", ranks, experts, 1, uneven, 0.0, -1);
    for (auto& mine : crowded.expert) std::ranges::fill(mine, experts - 1);
    cases.push_back(crowded);
    RoutingCase permuted = detail::random_case("permuted experts", ranks, experts, several, uneven, 0.2, -1);
    permuted.placement = permuted_placement(experts, 5, 0);
    cases.push_back(permuted);
    return cases;
}

}  // namespace moesaic
