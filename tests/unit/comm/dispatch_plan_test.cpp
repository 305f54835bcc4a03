// The plan of dispatch: its arithmetic without ranks, then made by ranks and compared with plain sorting.
#include "comm/dispatch_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "comm/dispatch_layout.h"
#include "tests/support/rank_setup.h"
#include "tests/support/routing_cases.h"

namespace moesaic {
namespace {

std::vector<i64> load_of(const RoutingCase& routing) {
    std::vector<i64> load(static_cast<std::size_t>(routing.ranks * routing.experts), 0);
    for (const RoutedRow& row : routing.grouped()) {
        ++load[static_cast<std::size_t>(row.source * routing.experts + routing.position(row.expert))];
    }
    return load;
}

TEST(ReceiveCapacity, IsTheBudgetTimesTheMean) {
    EXPECT_EQ(receive_capacity(100, 2, 2.0), 400);
    EXPECT_EQ(receive_capacity(3, 1, 1.5), 5);
    EXPECT_EQ(receive_capacity(0, 2, 2.0), 1);
    EXPECT_EQ(receive_capacity(10, 1, 0.01), 1);
}

/// Counts of `ranks` sources for the `local` experts of rank 0; the other ranks get nothing.
ChunkLayout reorder(i64 ranks, i64 local, const std::vector<i64>& counts) {
    std::vector<i64> load(static_cast<std::size_t>(ranks * ranks * local), 0);
    for (i64 source = 0; source < ranks; ++source) {
        for (i64 expert = 0; expert < local; ++expert) {
            load[static_cast<std::size_t>(source * ranks * local + expert)] =
                counts[static_cast<std::size_t>(source * local + expert)];
        }
    }
    return chunk_layout({load, ranks, local}, 0, 0, 1000);
}

TEST(ChunkLayout, ReordersRankMajorToExpertMajor) {  // the vectors of torchtitan's test of the same step
    using Indices = std::vector<i32>;
    using Totals = std::vector<i64>;
    const ChunkLayout first = reorder(2, 2, {2, 3, 1, 4});
    EXPECT_EQ(first.grouped_from_arrival, (Indices{0, 1, 5, 2, 3, 4, 6, 7, 8, 9}));
    EXPECT_EQ(first.arrival_from_grouped, (Indices{0, 1, 3, 4, 5, 2, 6, 7, 8, 9}));
    EXPECT_EQ(first.rows_per_expert, (Totals{3, 7}));
    const ChunkLayout gaps = reorder(2, 2, {0, 3, 2, 0});
    EXPECT_EQ(gaps.grouped_from_arrival, (Indices{3, 4, 0, 1, 2}));
    EXPECT_EQ(gaps.rows_per_expert, (Totals{2, 3}));
    EXPECT_EQ(reorder(3, 2, {2, 2, 2, 2, 2, 2}).grouped_from_arrival,
              (Indices{0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11}));
    EXPECT_TRUE(reorder(2, 2, {0, 0, 0, 0}).grouped_from_arrival.empty());
    EXPECT_EQ(reorder(1, 3, {2, 1, 2}).grouped_from_arrival, (Indices{0, 1, 2, 3, 4}));
    EXPECT_EQ(reorder(3, 1, {2, 1, 2}).grouped_from_arrival, (Indices{0, 1, 2, 3, 4}));
}

/// Where a row lies in its receiver's grouped order says its round and its place there.
TEST(AddressesAtReceivers, ArePlacesInGroupedOrder) {
    constexpr i64 kStride = 777;
    for (const int ranks : {1, 2, 3, 8}) {
        for (const RoutingCase& routing : routing_cases(ranks, 2 * ranks)) {
            const std::vector<i64> load = load_of(routing);
            for (const auto& [capacity, own_rows_first] :
                 {std::pair{1, false}, {4, false}, {500, false}, {1, true}, {4, true}}) {
                const LoadTable table{load, ranks, 2, own_rows_first};
                SCOPED_TRACE(testing::Message() << routing.name << ", ranks " << ranks << ", " << capacity
                                                << (own_rows_first ? ", own rows first" : ""));
                for (int source = 0; source < ranks; ++source) {
                    std::map<i64, std::vector<i32>> expected;  // by round
                    for (int receiver = 0; receiver < ranks; ++receiver) {
                        const std::vector<RoutedRow> rows = routing.received_by(receiver);
                        const std::vector<i64> rounds = routing.rounds_of(receiver, capacity, own_rows_first);
                        std::map<i64, i64> places;
                        for (std::size_t i = 0; i < rows.size(); ++i) {
                            const i64 place = places[rounds[i]]++;
                            if (rows[i].source == source)
                                expected[rounds[i]].push_back(static_cast<i32>(receiver * kStride + place));
                        }
                    }
                    for (i64 round = 0; round < rounds_needed(table, capacity); ++round)
                        EXPECT_EQ(addresses_at_receivers(table, source, round, capacity, kStride),
                                  expected[round]);
                }
            }
        }
    }
}

TEST(ChunkLayout, RoundsFollowTheFullestReceiver) {
    const std::vector<i64> load{0, 1, 5, 2,   // rank 0 to experts 0..3
                                0, 0, 4, 0};  // rank 1
    const LoadTable table{load, 2, 2};
    EXPECT_EQ(table.sent_by(0), 8);
    EXPECT_EQ(table.sent_by(1), 4);
    EXPECT_EQ(table.received_by(0), 1);
    EXPECT_EQ(table.received_by(1), 11);
    EXPECT_EQ(rounds_needed(table, 11), 1);
    EXPECT_EQ(rounds_needed(table, 10), 2);
    EXPECT_EQ(rounds_needed(table, 3), 4);
    EXPECT_EQ(rounds_needed(table, 1), 11);
    const std::vector<i64> nothing(8, 0);
    EXPECT_EQ(rounds_needed({nothing, 2, 2}, 3), 1);
}

/// Every round of every rank against cutting the sorted rows of each receiver into pieces.
void expect_rounds_match_sorting(const RoutingCase& routing, i64 capacity, bool own_rows_first) {
    SCOPED_TRACE(testing::Message() << routing.name << ", ranks " << routing.ranks << ", capacity "
                                    << capacity << (own_rows_first ? ", own rows first" : ""));
    const std::vector<i64> load = load_of(routing);
    const LoadTable table{load, routing.ranks, routing.local_experts(), own_rows_first};
    const i64 rounds = rounds_needed(table, capacity);
    for (i64 rank = 0; rank < routing.ranks; ++rank) {
        const std::vector<RoutedRow> slots = routing.sent_by(rank);
        for (i64 round = 0; round < rounds; ++round) {
            const ChunkLayout layout = chunk_layout(table, rank, round, capacity);
            for (i64 receiver = 0; receiver < routing.ranks; ++receiver) {
                const std::vector<RoutedRow> rows = routing.received_by(receiver);
                const std::vector<i64> rounds_of_rows = routing.rounds_of(receiver, capacity, own_rows_first);
                std::vector<RoutedRow> piece;
                for (std::size_t i = 0; i < rows.size(); ++i)
                    if (rounds_of_rows[i] == round) piece.push_back(rows[i]);
                std::vector<RoutedRow> from_here = piece;
                std::erase_if(from_here, [&](const RoutedRow& row) { return row.source != rank; });
                const auto to = static_cast<std::size_t>(receiver);
                ASSERT_EQ(layout.send_rows[to], std::ssize(from_here));
                for (i64 i = 0; i < layout.send_rows[to]; ++i) {
                    const RoutedRow& slot = slots[static_cast<std::size_t>(layout.first_slot[to] + i)];
                    EXPECT_EQ(slot.token, from_here[static_cast<std::size_t>(i)].token);
                    EXPECT_EQ(slot.expert, from_here[static_cast<std::size_t>(i)].expert);
                }
                if (receiver != rank) continue;
                std::vector<i64> per_expert(static_cast<std::size_t>(routing.local_experts()), 0);
                std::vector<i64> per_source(static_cast<std::size_t>(routing.ranks), 0);
                for (const RoutedRow& row : piece) {
                    ++per_expert[static_cast<std::size_t>(routing.position(row.expert) %
                                                          routing.local_experts())];
                    ++per_source[static_cast<std::size_t>(row.source)];
                }
                EXPECT_EQ(layout.rows_per_expert, per_expert);
                EXPECT_EQ(layout.recv_rows, per_source);
                ASSERT_EQ(layout.arrival_from_grouped.size(), piece.size());
                ASSERT_EQ(layout.grouped_from_arrival.size(), piece.size());
                for (std::size_t i = 0; i < piece.size(); ++i) {
                    const auto arrival = static_cast<std::size_t>(layout.grouped_from_arrival[i]);
                    EXPECT_EQ(layout.arrival_from_grouped[arrival], static_cast<i32>(i));
                }
            }
        }
    }
}

TEST(ChunkLayout, MatchesSortingForEveryCapacity) {
    for (const auto& [ranks, experts] : {std::pair{1, 5}, {2, 6}, {3, 3}, {3, 6}, {4, 8}, {8, 16}}) {
        for (const RoutingCase& routing : routing_cases(ranks, experts)) {
            for (const i64 capacity : {1, 2, 7, 1000}) {
                expect_rounds_match_sorting(routing, capacity, false);
                expect_rounds_match_sorting(routing, capacity, true);
            }
        }
    }
}

/// A plan's numbers, copied out of its tensors.
struct PlanNumbers {
    i64 tokens = 0, choices = 0, slots = 0, dropped = 0, bytes = 0;
    std::vector<i32> slot_of_choice;
    std::vector<i64> load;
    std::vector<std::vector<i32>> token_of_send, grouped_from_arrival, arrival_from_grouped;
    std::vector<std::vector<i64>> first_slot, send_rows;
};

/// Collective over the world of `setup`.
PlanNumbers plan_on(RankSetup& setup, const RoutingCase& routing, i64 capacity) {
    const auto rank = static_cast<std::size_t>(setup.mesh.experts().rank());
    std::vector<i32> expert = routing.expert[rank];
    Routing decided;
    decided.expert = setup.backend->allocate({routing.tokens[rank], routing.choices}, DType::int32);
    setup.backend->copy(*setup.compute, view_of(expert.data(), decided.expert.shape()), decided.expert);
    setup.mesh.place_experts(5, routing.placement);
    const i64 before = setup.backend->pool().bytes_in_use();
    const DispatchPlan plan = make_plan(setup.context, decided, {capacity}, 5);
    PlanNumbers numbers{plan.tokens, plan.choices, plan.slots, plan.dropped, 0,  {},
                        plan.load,   {},           {},         {},           {}, {}};
    numbers.bytes = setup.backend->pool().bytes_in_use() - before;
    numbers.slot_of_choice = setup.read<i32>(plan.slot_of_choice);
    for (const DispatchChunk& chunk : plan.chunks) {
        EXPECT_EQ(chunk.token_of_send.elements(), plan.tokens * plan.choices);
        EXPECT_EQ(chunk.grouped_from_arrival.elements(), capacity);
        numbers.token_of_send.push_back(setup.read<i32>(chunk.token_of_send.slice_rows(0, chunk.sent())));
        numbers.grouped_from_arrival.push_back(
            setup.read<i32>(chunk.grouped_from_arrival.slice_rows(0, chunk.received())));
        numbers.arrival_from_grouped.push_back(
            setup.read<i32>(chunk.arrival_from_grouped.slice_rows(0, chunk.received())));
        numbers.first_slot.push_back(chunk.first_slot);
        numbers.send_rows.push_back(chunk.send_rows);
    }
    setup.drain();
    return numbers;
}

std::vector<PlanNumbers> plan_everywhere(const RoutingCase& routing, int replicas, i64 capacity,
                                         StreamChoice streams) {
    std::vector<PlanNumbers> plans(static_cast<std::size_t>(routing.ranks * replicas));
    run_ranks(routing.ranks * replicas, [&](Communicator& world) {
        RankSetup setup(world, routing.ranks, routing.experts, streams);
        plans[static_cast<std::size_t>(world.rank())] = plan_on(setup, routing, capacity);
    });
    return plans;
}

void expect_plan(const PlanNumbers& plan, const RoutingCase& routing, i64 rank, i64 capacity) {
    const std::vector<RoutedRow> slots = routing.sent_by(rank);
    EXPECT_EQ(plan.tokens, routing.tokens[static_cast<std::size_t>(rank)]);
    EXPECT_EQ(plan.choices, routing.choices);
    EXPECT_EQ(plan.slots, std::ssize(slots));
    EXPECT_EQ(plan.dropped, plan.tokens * plan.choices - plan.slots);
    const std::vector<i64> load = load_of(routing);
    EXPECT_EQ(plan.load, load);
    std::vector<i32> slot_of_choice(static_cast<std::size_t>(plan.tokens * plan.choices), -1);
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
        slot_of_choice[static_cast<std::size_t>(slots[slot].token * plan.choices + slots[slot].choice)] =
            static_cast<i32>(slot);
    }
    EXPECT_EQ(plan.slot_of_choice, slot_of_choice);
    const LoadTable table{load, routing.ranks, routing.local_experts()};
    ASSERT_EQ(std::ssize(plan.send_rows), rounds_needed(table, capacity));
    std::vector<i32> seen(slots.size(), 0);
    for (std::size_t round = 0; round < plan.send_rows.size(); ++round) {
        const ChunkLayout layout = chunk_layout(table, rank, static_cast<i64>(round), capacity);
        EXPECT_EQ(plan.grouped_from_arrival[round], layout.grouped_from_arrival);
        EXPECT_EQ(plan.arrival_from_grouped[round], layout.arrival_from_grouped);
        std::vector<i32> tokens;
        for (std::size_t peer = 0; peer < plan.send_rows[round].size(); ++peer) {
            for (i64 row = 0; row < plan.send_rows[round][peer]; ++row) {
                const auto slot = static_cast<std::size_t>(plan.first_slot[round][peer] + row);
                tokens.push_back(static_cast<i32>(slots[slot].token));
                ++seen[slot];
            }
        }
        EXPECT_EQ(plan.token_of_send[round], tokens);
    }
    EXPECT_EQ(seen, std::vector<i32>(slots.size(), 1));  // every slot travels in exactly one round
}

TEST(MakePlan, MatchesSortingOnEveryRank) {
    for (const auto& [ranks, experts] : {std::pair{1, 5}, {2, 6}, {3, 6}, {4, 8}, {8, 8}}) {
        for (const RoutingCase& routing : routing_cases(ranks, experts)) {
            for (const i64 capacity : {2, 1000}) {
                for (const StreamChoice streams :
                     {StreamChoice{}, StreamChoice{StreamMode::deferred_shuffled, 3}}) {
                    SCOPED_TRACE(testing::Message() << routing.name << ", ranks " << ranks << ", capacity "
                                                    << capacity << ", seed " << streams.seed);
                    const auto plans = plan_everywhere(routing, 1, capacity, streams);
                    for (i64 rank = 0; rank < ranks; ++rank) {
                        expect_plan(plans[static_cast<std::size_t>(rank)], routing, rank, capacity);
                    }
                }
            }
        }
    }
}

TEST(MakePlan, StaysWithinTheExpertGroup) {
    for (const RoutingCase& routing : routing_cases(2, 4)) {
        SCOPED_TRACE(routing.name);
        const auto plans = plan_everywhere(routing, 2, 3, {});
        for (i64 rank = 0; rank < 4; ++rank) {
            expect_plan(plans[static_cast<std::size_t>(rank)], routing, rank % 2, 3);
        }
    }
}

TEST(MakePlan, MemoryDoesNotDependOnRouting) {
    std::map<std::pair<std::size_t, i64>, i64> bytes;  // (rank, choices) -> bytes
    for (const RoutingCase& routing : routing_cases(4, 8)) {
        if (routing.name == "one token" || routing.name == "no token") continue;
        const auto plans = plan_everywhere(routing, 1, 1000, {});
        for (std::size_t rank = 0; rank < plans.size(); ++rank) {
            const auto [known, fresh] = bytes.try_emplace({rank, routing.choices}, plans[rank].bytes);
            EXPECT_EQ(plans[rank].bytes, known->second) << routing.name << ", rank " << rank;
        }
    }
}

}  // namespace
}  // namespace moesaic
