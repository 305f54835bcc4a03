// How long an all-to-all of uneven amounts takes: messages one after the other through the ports of ranks.
#pragma once

#include <string_view>
#include <vector>

#include "comm/exchange/exchange_settings.h"
#include "comm/traffic/traffic.h"
#include "runtime/config/cluster_config.h"

namespace moesaic {

/// What one exchange of a group takes.
struct SimulatedExchange {
    double seconds = 0;
    i64 self_bytes = 0, same_node_bytes = 0, cross_node_bytes = 0;  ///< of all ranks
    double busiest_over_mean = 1;  ///< bytes that the busiest rank receives over the mean
};

/// `ranks_per_node` consecutive ranks share a machine. Every rank sends to its neighbours in turn, rank + 1
/// first; it has a port to its node and one to the network, each of which sends one message and receives one
/// at a time. A message leaves when the sender's and the receiver's port are free, and takes latency +
/// bytes / rate. Event by event; ties go to the lower rank.
[[nodiscard]] SimulatedExchange simulate_exchange(const RankMatrix& bytes, int ranks_per_node,
                                                  const LinkProfile& node, const LinkProfile& network);

/// Rows of one layer and micro-step on the way to experts, of a group of ranks that each have as many tokens.
struct RoutedRows {
    RankMatrix choices;         ///< a row for every choice
    std::vector<i64> to_nodes;  ///< [ranks, nodes] tokens of a rank with a choice on a node
    std::vector<i64> received;  ///< [ranks] by the ranks that hold the experts
    double scale = 1;           ///< counts are of so many times fewer tokens than there are

    [[nodiscard]] double fullest_over_mean() const;
};
/// By a pattern of comm/traffic; of very many tokens an even sample. Throws UserError where the pattern does
/// not fit.
[[nodiscard]] RoutedRows route_rows(const std::string& traffic, const PatternShape& shape,
                                    int ranks_per_node);

/// Dispatch, combine and their adjoints of one layer and micro-step by exchange `name`: two rounds there, two
/// back.
[[nodiscard]] SimulatedExchange simulate_layer(std::string_view name, const RoutedRows& rows, i64 row_bytes,
                                               int ranks_per_node, const DeviceProfile& device);

}  // namespace moesaic
