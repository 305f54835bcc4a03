#include "comm/node_grid.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace moesaic {

bool NodeGrid::even() const {
    return std::ranges::all_of(
        ranks_of, [&](const std::vector<int>& ranks) { return ranks.size() == ranks_of.front().size(); });
}

int NodeGrid::rank_at(int node, int local) const {
    return ranks_of.at(static_cast<std::size_t>(node)).at(static_cast<std::size_t>(local));
}

std::vector<int> NodeGrid::by_node() const {
    std::vector<int> order;
    for (const std::vector<int>& ranks : ranks_of) order.insert(order.end(), ranks.begin(), ranks.end());
    return order;
}

std::vector<int> NodeGrid::by_local() const {
    std::vector<int> order = by_node();
    std::ranges::stable_sort(order, {}, [&](int rank) { return local_of[static_cast<std::size_t>(rank)]; });
    return order;
}

std::string NodeGrid::text() const {
    if (even())
        return fmt::format("{} node{} of {} rank{}", nodes, nodes == 1 ? "" : "s", ranks_per_node(),
                           ranks_per_node() == 1 ? "" : "s");
    std::vector<std::size_t> sizes;
    for (const std::vector<int>& ranks : ranks_of) sizes.push_back(ranks.size());
    return fmt::format("nodes of {} ranks", fmt::join(sizes, ", "));
}

NodeGrid make_node_grid(std::span<const int> node_of_rank) {
    NodeGrid grid;
    std::vector<int> names;  // of nodes, in the caller's numbers
    for (int rank = 0; rank < static_cast<int>(node_of_rank.size()); ++rank) {
        const int name = node_of_rank[static_cast<std::size_t>(rank)];
        const auto found = std::ranges::find(names, name);
        const auto node = static_cast<std::size_t>(found - names.begin());
        if (found == names.end()) {
            names.push_back(name);
            grid.ranks_of.emplace_back();
        }
        grid.node_of.push_back(static_cast<int>(node));
        grid.local_of.push_back(static_cast<int>(grid.ranks_of[node].size()));
        grid.ranks_of[node].push_back(rank);
    }
    grid.nodes = static_cast<int>(names.size());
    return grid;
}

}  // namespace moesaic
