// Where every (token, choice) goes and how it comes back: made once per MoE layer and micro-step, used four
// times.
#pragma once

#include <vector>

#include "comm/dispatch_layout.h"
#include "comm/exchange/node_plan.h"
#include "comm/mesh.h"
#include "comm/routing.h"
#include "comm/step_context.h"

namespace moesaic {

/// One round of the exchange. Rounds exist because a receiver takes at most a budget of rows at once; every
/// rank of the expert group computes the same number of rounds from the same all-gathered counts.
struct DispatchChunk {
    std::vector<i64> first_slot;       ///< [W] where this round's rows for a rank begin, in slots
    std::vector<i64> send_rows;        ///< [W]
    std::vector<i64> recv_rows;        ///< [W]
    std::vector<i64> rows_per_expert;  ///< [e] received rows by local expert
    std::vector<i64> rows_per_source;  ///< [e,W] the same by source rank: one micro-batch each
    // The index tensors are as large as they can get, so that memory does not depend on routing: read the
    // first sent() or received() entries.
    Tensor token_of_send;         ///< i32 [T*K] source token of each row as it is sent, see WireOrder
    Tensor grouped_from_arrival;  ///< i32 [C] row i by expert is arrival row grouped_from_arrival[i]
    Tensor arrival_from_grouped;  ///< i32 [C] the inverse
    // For exchanges that reach into peers' memory; otherwise empty.
    Tensor address_of_send;  ///< i32 [T*K] row among all ranks' rows where each row that is sent lies
    Tensor slot_of_send;     ///< i32 [T*K] its slot; where there are several rounds
    [[nodiscard]] i64 sent() const;
    [[nodiscard]] i64 received() const;
};

/// In which order rows for other ranks, and from them, lie on the wire; empty: by rank.
struct WireOrder {
    std::vector<int> destinations, sources;
};

/// How the rows of a plan are cut into rounds.
struct RoundRule {
    i64 capacity_rows = 1;        ///< the most that a rank receives in one
    bool own_rows_first = false;  ///< as LoadTable has it
};

/// Slots are this rank's kept (token, choice) pairs in send order: destination rank, local expert, token. A
/// choice of an expert in t slices is t choices here, one for each rank that holds a slice.
/// Received rows are grouped by local expert and, within one, ordered by source rank and token, which is the
/// order of the global micro-batch: weight gradients add rows in that order on every layout, but for the
/// order of sources with RoundRule::own_rows_first.
struct DispatchPlan {
    int layer = -1;  ///< names the collectives
    /// K: the router's, each as many times as experts have slices (Mesh). Choice k * t + s of a token is its
    /// k-th expert's slice s.
    i64 tokens = 0, choices = 0, slots = 0;
    i64 slices = 1;            ///< t
    i64 most_slots = 0;        ///< slots() of the routing, t times: what memory has room for
    i64 dropped = 0;           ///< of this rank's choices
    Tensor slot_of_choice;     ///< i32 [T,K]; -1: dropped
    Tensor address_of_choice;  ///< i32 [T,K] as DispatchChunk::address_of_send, of the only round
    std::vector<i64> load;     ///< [W,W*e] rows that rank w sends to local expert i of rank r, at r*e + i
    RoundRule rule;
    std::vector<DispatchChunk> chunks;  ///< at least one
    std::vector<i32> choice_of_slot;    ///< [S] t*K + k
    NodePlan nodes;
};

/// Most rows that a rank receives in one round: `receive_budget` times the mean of the expert group, for
/// micro-batches of at most `tokens` tokens with `choices` choices. Known from the configuration alone.
[[nodiscard]] i64 receive_capacity(i64 tokens, i64 choices, double receive_budget);

/// Collective over mesh.experts(): all-gathers the counts per expert (the only host synchronisation of a
/// layer). `layer` names the collective and says whose placement counts.
[[nodiscard]] DispatchPlan make_plan(StepContext& context, const Routing& routing, const RoundRule& rule,
                                     int layer, const WireOrder& order = {});

/// The counts of a plan that was made on this mesh.
[[nodiscard]] LoadTable load_table(const DispatchPlan& plan, const Mesh& mesh);

}  // namespace moesaic
