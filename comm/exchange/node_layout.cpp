#include "comm/exchange/node_layout.h"

#include <algorithm>
#include <numeric>

#include "comm/array_index.h"

namespace moesaic {

namespace {}  // namespace

NodeSizes node_sizes(const NodeGrid& grid, i64 tokens, i64 choices, i64 capacity_rows, i64 local_experts) {
    NodeSizes sizes;
    sizes.nodes = grid.nodes;
    sizes.ranks_per_node = grid.ranks_per_node();
    sizes.choices_on_node = std::min(choices, sizes.ranks_per_node * local_experts);
    sizes.proxied_in_all = std::max<i64>(1, sizes.nodes * tokens * sizes.choices_on_node);
    sizes.proxied = std::min(sizes.proxied_in_all, sizes.ranks_per_node * capacity_rows);
    sizes.tokens_arrived = std::min(sizes.proxied, std::max<i64>(1, sizes.nodes * tokens));
    return sizes;
}

NodeLayout node_layout(const LoadTable& table, const NodeGrid& grid, i64 rank, i64 round, i64 capacity_rows) {
    const i64 nodes = grid.nodes, locals = grid.ranks_per_node();
    const i64 begin = round * capacity_rows, end = begin + capacity_rows;
    const int own_node = grid.node_of[at(rank)], own_local = grid.local_of[at(rank)];
    const auto rows = [&](i64 source, i64 receiver) {
        return table.rows_between(source, receiver, begin, end);
    };
    NodeLayout layout;
    layout.slots_to_node.assign(at(nodes), 0);
    layout.slots_from_node.assign(at(nodes), 0);
    layout.rows_to_local.assign(at(locals), 0);
    layout.rows_from_proxy.assign(at(locals), 0);
    layout.pair_rows.assign(at(nodes * locals), 0);
    for (int node = 0; node < nodes; ++node) {
        const i64 partner = grid.rank_at(node, own_local);
        for (int local = 0; local < locals; ++local) {
            const i64 pair = rows(partner, grid.rank_at(own_node, local));
            layout.slots_to_node[at(node)] += rows(rank, grid.rank_at(node, local));
            layout.pair_rows[at(node * locals + local)] = pair;
            layout.slots_from_node[at(node)] += pair;
            layout.rows_to_local[at(local)] += pair;
            layout.rows_from_proxy[at(local)] += rows(grid.rank_at(node, local), rank);
        }
    }
    const i64 proxied = std::reduce(layout.slots_from_node.begin(), layout.slots_from_node.end());
    layout.arrival_from_leaving.resize(at(proxied));
    layout.leaving_from_arrival.reserve(at(proxied));
    for (i64 local = 0; local < locals; ++local) {
        for (i64 node = 0; node < nodes; ++node) {  // what arrived lies by node, then local number
            const auto pair = layout.pair_rows.begin() + node * locals;
            const auto before = layout.slots_from_node.begin();
            const i64 first =
                std::accumulate(before, before + node, i64{0}) + std::accumulate(pair, pair + local, i64{0});
            for (i64 row = 0; row < pair[local]; ++row) {
                layout.arrival_from_leaving[at(first + row)] =
                    static_cast<i32>(layout.leaving_from_arrival.size());
                layout.leaving_from_arrival.push_back(static_cast<i32>(first + row));
            }
        }
    }
    return layout;
}

DistinctTokens distinct_tokens(std::span<const i32> token_of_row) {
    DistinctTokens rows;
    rows.tokens.assign(token_of_row.begin(), token_of_row.end());
    std::ranges::sort(rows.tokens);
    rows.tokens.erase(std::unique(rows.tokens.begin(), rows.tokens.end()), rows.tokens.end());
    std::vector<i32> seen(rows.tokens.size(), 0);
    for (const i32 token : token_of_row) {
        const auto place = std::ranges::lower_bound(rows.tokens, token) - rows.tokens.begin();
        rows.of_row.push_back(static_cast<i32>(place));
        rows.ordinal.push_back(seen[at(place)]++);
    }
    return rows;
}

}  // namespace moesaic
