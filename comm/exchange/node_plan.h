// What a plan says besides to exchanges that go by nodes: across nodes between partners, then within a node.
#pragma once

#include <vector>

#include "runtime/tensor.h"

namespace moesaic {

// N nodes of L ranks; partners have the same local number on different nodes. A row travels from its source
// to the source's partner on the expert's node, the *proxy*, which hands it to the expert's rank. Every rank
// is a source, a proxy for its partners, and holds experts. J: most experts of one node that a token visits.

/// One round, by what this rank is in it. Rows leave a source by node, then local number, then slot; they
/// leave a proxy by local number, then source's node, then slot.
struct NodeChunk {
    // As a source.
    std::vector<i64> slots_to_node;   ///< [N]
    std::vector<i64> tokens_to_node;  ///< [N] distinct tokens among them; dedup only
    // As a proxy.
    std::vector<i64> slots_from_node;   ///< [N] rows that its partner on each node sends to this node
    std::vector<i64> tokens_from_node;  ///< [N] distinct tokens among them; dedup only
    std::vector<i64> rows_to_local;     ///< [L]
    // As a holder of experts.
    std::vector<i64> rows_from_proxy;  ///< [L]

    // Index tensors are as large as they can get; those that an exchange has no use for are empty.
    Tensor leaving_from_arrival;  ///< i32 [P] leaving row i is slot leaving_from_arrival[i] of what arrived
    Tensor arrival_from_leaving;  ///< i32 [P] the inverse
    Tensor token_of_leaving;      ///< i32 [P] the arrived token that each leaving row repeats
    Tensor leaving_of_token;      ///< i32 [U,J] leaving rows of each arrived token; -1: no more
    Tensor weight_of_token;       ///< real [U,J] their weights
    Tensor token_of_departure;    ///< i32 [D] this rank's token of each row that a deduplicating source sends
    Tensor departure_of_token;    ///< i32 [T,N] the row in which token t goes to node n; -1: it does not
    Tensor weight_place;          ///< i32 [T*K] where in [D,J] a choice's d_weight comes back; -1: not here

    [[nodiscard]] i64 proxied() const;
    [[nodiscard]] i64 tokens_arrived() const;
    [[nodiscard]] i64 departures() const;
};

struct NodePlan {
    std::vector<NodeChunk> chunks;   ///< as many as the plan has, or none for exchanges that know no nodes
    std::vector<i64> first_proxied;  ///< by round: rows that this rank proxied in earlier ones
};

}  // namespace moesaic
