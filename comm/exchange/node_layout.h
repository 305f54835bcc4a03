// The arithmetic of an exchange by nodes: counts and permutations as plain data, without a network.
#pragma once

#include <span>
#include <vector>

#include "comm/dispatch_layout.h"
#include "comm/node_grid.h"

namespace moesaic {

/// Bounds that no routing exceeds, letters as in node_plan.h.
struct NodeSizes {
    i64 nodes = 1, ranks_per_node = 1;
    i64 choices_on_node = 1;  ///< J
    i64 proxied = 1;          ///< P, rows that a proxy handles in one round
    i64 proxied_in_all = 1;   ///< the same in all rounds
    i64 tokens_arrived = 1;   ///< U, distinct (source, token) in one round
};
/// `tokens` T, `choices` K, `capacity_rows` C, `local_experts` of one rank.
[[nodiscard]] NodeSizes node_sizes(const NodeGrid& grid, i64 tokens, i64 choices, i64 capacity_rows,
                                   i64 local_experts);

/// What follows from the load table alone.
struct NodeLayout {
    std::vector<i64> slots_to_node, slots_from_node;  ///< [N]
    std::vector<i64> rows_to_local, rows_from_proxy;  ///< [L]
    std::vector<i64> pair_rows;  ///< [N,L] rows of the partner on node n for the rank of local number l
    std::vector<i32> leaving_from_arrival, arrival_from_leaving;  ///< [P]
};
[[nodiscard]] NodeLayout node_layout(const LoadTable& table, const NodeGrid& grid, i64 rank, i64 round,
                                     i64 capacity_rows);

/// Rows of which several may be of one token, as a node receives them from one source.
struct DistinctTokens {
    std::vector<i32> tokens;   ///< distinct, ascending
    std::vector<i32> of_row;   ///< where in `tokens` each row's token stands
    std::vector<i32> ordinal;  ///< and the how manieth of its token's rows it is
};
[[nodiscard]] DistinctTokens distinct_tokens(std::span<const i32> token_of_row);

}  // namespace moesaic
