// Bytes that an exchange will send, before it has: at uniform routing, in expectation.
#pragma once

#include <string_view>
#include <vector>

#include "comm/exchange/exchange_settings.h"
#include "runtime/base/types.h"

namespace moesaic {

/// One layer's tokens of all ranks, on expert-parallel groups of `nodes` * `ranks_per_node` ranks.
struct TrafficShape {
    double tokens = 0;
    i64 choices = 1, experts = 1;  ///< of a plan: each for every slice
    i64 slices = 1;                ///< of an expert
    i64 nodes = 1, ranks_per_node = 1;
    i64 row_bytes = 0;     ///< of a token's row on the wire
    i64 weight_bytes = 4;  ///< of a router's weight

    [[nodiscard]] i64 ranks() const { return nodes * ranks_per_node; }
    [[nodiscard]] i64 choices_on_node() const;
};

/// Bytes over all ranks, as in SentBytes.
struct ExpectedBytes {
    std::string_view phase;  ///< of traffic_ledger.h
    double self = 0, same_node = 0, cross_node = 0;
};

/// `rows` bytes that each go to a rank at random.
[[nodiscard]] ExpectedBytes spread_over_ranks(std::string_view phase, const TrafficShape&, double bytes);

/// The share of a token's choices, distinct and uniform, of which at least one lies on a given node:
/// 1 - C(E - E/N, K) / C(E, K).
[[nodiscard]] double share_of_tokens_on_node(const TrafficShape&);

/// Forward and backward of one layer without the all-gather of counts. The settings' name is that of a kind
/// in exchange_table().
[[nodiscard]] std::vector<ExpectedBytes> expected_traffic(const ExchangeSettings&, const TrafficShape&);

// For the table of exchanges.
[[nodiscard]] std::vector<ExpectedBytes> expected_flat(const ExchangeSettings&, const TrafficShape&);
[[nodiscard]] std::vector<ExpectedBytes> expected_hierarchical(const ExchangeSettings&, const TrafficShape&);
[[nodiscard]] std::vector<ExpectedBytes> expected_dedup(const ExchangeSettings&, const TrafficShape&);

}  // namespace moesaic
