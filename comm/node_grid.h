// Which ranks of a group share a node: plain data, made from each rank's node.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace moesaic {

/// Nodes are numbered in order of their lowest rank, ranks of a node (its "local" ranks) in order of rank.
struct NodeGrid {
    int nodes = 1;
    std::vector<int> node_of, local_of;      ///< by rank of the group
    std::vector<std::vector<int>> ranks_of;  ///< [nodes] ranks of each, ascending

    /// Whether every node holds as many ranks: then each rank has one partner on every node.
    [[nodiscard]] bool even() const;
    /// Of an even grid.
    [[nodiscard]] int ranks_per_node() const { return static_cast<int>(ranks_of.front().size()); }
    [[nodiscard]] int rank_at(int node, int local) const;
    /// Ranks by node, and within one by local rank.
    [[nodiscard]] std::vector<int> by_node() const;
    /// Ranks by local rank, and among equals by node.
    [[nodiscard]] std::vector<int> by_local() const;
    /// "2 nodes of 4 ranks", or "nodes of 3, 1 ranks".
    [[nodiscard]] std::string text() const;
};

/// `node_of_rank` may hold any numbers: equal ones share a node.
[[nodiscard]] NodeGrid make_node_grid(std::span<const int> node_of_rank);

}  // namespace moesaic
