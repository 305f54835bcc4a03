#include "comm/dispatch_layout.h"

#include <algorithm>
#include <numeric>

#include "comm/array_index.h"
#include "runtime/base/error.h"

namespace moesaic {

namespace {

struct Block {
    i64 expert = 0;  // local to the receiver
    i64 source = 0;
    i64 rows = 0;     // of this block that lie in the piece
    i64 skipped = 0;  // of this block that earlier pieces carried
};

/// Calls visit(Block) for every (local expert, source) of `receiver` in grouped order, with its share of the
/// piece [begin, end).
template <class Visit>
void for_each_block(const LoadTable& table, i64 receiver, i64 begin, i64 end, Visit visit) {
    const i64 first_source = table.own_rows_first ? receiver : 0;
    i64 first_of_expert = 0;  // where its rows begin, in the order in which rounds take them
    for (i64 expert = 0; expert < table.local_experts; ++expert) {
        const i64 number = receiver * table.local_experts + expert;
        i64 from_first_source = first_of_expert, from_rank_0 = first_of_expert;
        for (i64 source = first_source; source < table.ranks; ++source)
            from_rank_0 += table.rows(source, number);
        for (i64 source = 0; source < table.ranks; ++source) {
            i64& position = source < first_source ? from_rank_0 : from_first_source;
            const i64 rows = table.rows(source, number);
            const i64 first = std::clamp(begin - position, i64{0}, rows);
            const i64 last = std::clamp(end - position, i64{0}, rows);
            visit(Block{expert, source, last - first, first});
            position += rows;
        }
        first_of_expert = first_source > 0 ? from_rank_0 : from_first_source;
    }
}

std::vector<i64> offsets_of(const std::vector<i64>& counts) {
    std::vector<i64> offsets(counts.size());
    std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), i64{0});
    return offsets;
}

/// The permutation between arrival order (source, local expert, token) and grouped order within the piece.
void order_arrivals(const LoadTable& table, i64 rank, i64 begin, i64 end, std::span<const int> sources,
                    ChunkLayout& chunk) {
    std::vector<i64> next = offsets_of(chunk.recv_rows);
    i64 first = 0;
    for (const int source : sources) {
        next[at(source)] = first;
        first += chunk.recv_rows[at(source)];
    }
    const i64 received = std::reduce(chunk.recv_rows.begin(), chunk.recv_rows.end());
    chunk.grouped_from_arrival.reserve(at(received));
    chunk.arrival_from_grouped.resize(at(received));
    for_each_block(table, rank, begin, end, [&](const Block& block) {
        for (i64 row = 0; row < block.rows; ++row) {
            const i64 arrival = next[at(block.source)]++;
            chunk.arrival_from_grouped[at(arrival)] = static_cast<i32>(chunk.grouped_from_arrival.size());
            chunk.grouped_from_arrival.push_back(static_cast<i32>(arrival));
        }
    });
}

}  // namespace

i64 LoadTable::sent_by(i64 source) const {
    i64 sum = 0;
    for (i64 expert = 0; expert < ranks * local_experts; ++expert) sum += rows(source, expert);
    return sum;
}

i64 LoadTable::received_by(i64 receiver) const {
    i64 sum = 0;
    for (i64 source = 0; source < ranks; ++source) sum += rows_to(source, receiver);
    return sum;
}

i64 LoadTable::rows_to(i64 source, i64 receiver) const {
    i64 sum = 0;
    for (i64 expert = 0; expert < local_experts; ++expert)
        sum += rows(source, receiver * local_experts + expert);
    return sum;
}

i64 LoadTable::rows_between(i64 source, i64 receiver, i64 begin, i64 end) const {
    i64 sum = 0;
    for_each_block(*this, receiver, begin, end, [&](const Block& block) {
        if (block.source == source) sum += block.rows;
    });
    return sum;
}

i64 rounds_needed(const LoadTable& table, i64 capacity_rows) {
    MOESAIC_ASSERT(capacity_rows > 0, "a round carries {} rows", capacity_rows);
    i64 most = 1;
    for (i64 receiver = 0; receiver < table.ranks; ++receiver) {
        most = std::max(most, table.received_by(receiver));
    }
    return (most + capacity_rows - 1) / capacity_rows;
}

ChunkLayout chunk_layout(const LoadTable& table, i64 rank, i64 round, i64 capacity_rows,
                         std::span<const int> sources) {
    const i64 begin = round * capacity_rows, end = begin + capacity_rows;
    ChunkLayout chunk;
    chunk.first_slot.assign(at(table.ranks), 0);
    chunk.send_rows.assign(at(table.ranks), 0);
    chunk.recv_rows.assign(at(table.ranks), 0);
    chunk.rows_per_expert.assign(at(table.local_experts), 0);
    chunk.rows_per_source.assign(at(table.local_experts * table.ranks), 0);
    // A piece is an interval of grouped order, whichever source comes first, and that order restricted to one
    // source is its send order (local expert, token): so a source's share of a piece is a contiguous slice of
    // its slots.
    i64 destination_begin = 0;
    for (i64 receiver = 0; receiver < table.ranks; ++receiver) {
        chunk.first_slot[at(receiver)] = destination_begin;
        for_each_block(table, receiver, begin, end, [&](const Block& block) {
            if (block.source != rank) return;
            chunk.first_slot[at(receiver)] += block.skipped;
            chunk.send_rows[at(receiver)] += block.rows;
            destination_begin += table.rows(rank, receiver * table.local_experts + block.expert);
        });
    }
    for_each_block(table, rank, begin, end, [&](const Block& block) {
        chunk.recv_rows[at(block.source)] += block.rows;
        chunk.rows_per_expert[at(block.expert)] += block.rows;
        chunk.rows_per_source[at(block.expert * table.ranks + block.source)] += block.rows;
    });
    order_arrivals(table, rank, begin, end, sources, chunk);
    return chunk;
}

std::vector<i32> addresses_at_receivers(const LoadTable& table, i64 rank, i64 round, i64 capacity_rows,
                                        i64 stride) {
    const i64 begin = round * capacity_rows, end = begin + capacity_rows;
    std::vector<i32> addresses;
    for (i64 receiver = 0; receiver < table.ranks; ++receiver) {
        i64 address = receiver * stride;
        for_each_block(table, receiver, begin, end, [&](const Block& block) {
            for (i64 row = 0; block.source == rank && row < block.rows; ++row)
                addresses.push_back(static_cast<i32>(address + row));
            address += block.rows;
        });
    }
    return addresses;
}

}  // namespace moesaic
