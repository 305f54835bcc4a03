// The arithmetic of dispatch: where rows lie in every round, computed from the all-gathered counts alone.
#pragma once

#include <span>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// The counts that every rank of the expert group knows alike. Experts are named by their positions: those of
/// rank r are [r * local_experts, (r + 1) * local_experts).
struct LoadTable {
    std::span<const i64> load;  ///< [W,E] rows that rank w sends to expert e
    i64 ranks = 1, local_experts = 1;
    bool own_rows_first = false;  ///< see chunk_layout

    [[nodiscard]] i64 rows(i64 source, i64 expert) const {
        return load[static_cast<std::size_t>(source * ranks * local_experts + expert)];
    }
    [[nodiscard]] i64 sent_by(i64 source) const;
    [[nodiscard]] i64 received_by(i64 receiver) const;
    [[nodiscard]] i64 rows_to(i64 source, i64 receiver) const;
    /// Rows that `source` sends `receiver` in [begin, end) of the order in which the receiver's rounds take
    /// rows.
    [[nodiscard]] i64 rows_between(i64 source, i64 receiver, i64 begin, i64 end) const;
};

/// What one round moves, seen from one rank.
struct ChunkLayout {
    std::vector<i64> first_slot;            ///< [W]
    std::vector<i64> send_rows, recv_rows;  ///< [W]
    std::vector<i64> rows_per_expert;       ///< [e]
    std::vector<i64> rows_per_source;       ///< [e,W] the same by source rank
    std::vector<i32> grouped_from_arrival;  ///< [R] row i by expert is arrival row grouped_from_arrival[i]
    std::vector<i32> arrival_from_grouped;  ///< [R]
};

/// Rounds that the fullest receiver needs when each takes at most `capacity_rows` at once; at least 1.
[[nodiscard]] i64 rounds_needed(const LoadTable& table, i64 capacity_rows);

/// Round `round` on `rank`: every receiver's rows in grouped order (local expert, source, token) are cut into
/// pieces of `capacity_rows`, and this round carries piece `round` of each. So within an expert rows come in
/// the same order for every capacity (with own_rows_first each source's do). Rows arrive source by source, in
/// the order `sources` (empty: by rank).
///
/// With `own_rows_first` an expert's rows are cut in another order: those of the receiver itself, then of the
/// next rank, and so on around. So in every round different ranks send to different ones, where otherwise all
/// would wait for the rows of one; and while the first round's rows are computed, most others are on their
/// way. Within a round rows lie in grouped order all the same.
[[nodiscard]] ChunkLayout chunk_layout(const LoadTable& table, i64 rank, i64 round, i64 capacity_rows,
                                       std::span<const int> sources = {});

/// Where the rows that `rank` sends in a round lie with their receivers, in send order (receiver, local
/// expert, token): at receiver * stride + the place in the receiver's grouped order of that round.
[[nodiscard]] std::vector<i32> addresses_at_receivers(const LoadTable& table, i64 rank, i64 round,
                                                      i64 capacity_rows, i64 stride);

}  // namespace moesaic
