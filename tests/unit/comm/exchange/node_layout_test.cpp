// The arithmetic of an exchange by nodes against a search of all rows.
#include "comm/exchange/node_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/support/exchange_bench.h"

namespace moesaic {
namespace {

/// One row with the round in which its receiver takes it.
struct TravellingRow {
    RoutedRow row;
    i64 receiver = 0, round = 0;
};

std::vector<TravellingRow> travelling(const RoutingCase& routing, i64 capacity) {
    std::vector<TravellingRow> rows;
    std::map<i64, i64> received;
    for (const RoutedRow& row : routing.grouped()) {
        const i64 receiver = routing.receiver(row);
        rows.push_back({row, receiver, received[receiver]++ / capacity});
    }
    return rows;
}

void expect_layout(const RoutingCase& routing, const NodeGrid& grid, i64 rank, i64 round, i64 capacity) {
    std::vector<i64> load(static_cast<std::size_t>(routing.ranks * routing.experts), 0);
    for (const RoutedRow& row : routing.grouped())
        ++load[static_cast<std::size_t>(row.source * routing.experts + routing.position(row.expert))];
    const LoadTable table{load, routing.ranks, routing.local_experts()};
    const NodeLayout layout = node_layout(table, grid, rank, round, capacity);
    const auto node = [&](i64 one) { return grid.node_of[static_cast<std::size_t>(one)]; };
    const auto local = [&](i64 one) { return grid.local_of[static_cast<std::size_t>(one)]; };
    std::vector<i64> to_node(static_cast<std::size_t>(grid.nodes), 0), from_node = to_node;
    std::vector<i64> to_local(static_cast<std::size_t>(grid.ranks_per_node()), 0), from_proxy = to_local;
    std::vector<TravellingRow> proxied;
    for (const TravellingRow& one : travelling(routing, capacity)) {
        if (one.round != round) continue;
        const i64 source = one.row.source;
        if (source == rank) ++to_node[static_cast<std::size_t>(node(one.receiver))];
        if (one.receiver == rank) ++from_proxy[static_cast<std::size_t>(local(source))];
        if (node(one.receiver) != node(rank) || local(source) != local(rank)) continue;
        ++from_node[static_cast<std::size_t>(node(source))];
        ++to_local[static_cast<std::size_t>(local(one.receiver))];
        proxied.push_back(one);
    }
    EXPECT_EQ(layout.slots_to_node, to_node);
    EXPECT_EQ(layout.slots_from_node, from_node);
    EXPECT_EQ(layout.rows_to_local, to_local);
    EXPECT_EQ(layout.rows_from_proxy, from_proxy);
    const auto key = [&](const TravellingRow& one, bool leaving) {
        const int first = leaving ? local(one.receiver) : node(one.row.source);
        const int second = leaving ? node(one.row.source) : local(one.receiver);
        return std::tuple(first, second, routing.position(one.row.expert), one.row.token);
    };
    std::vector<TravellingRow> arriving = proxied, leaving = proxied;
    std::ranges::sort(arriving, {}, [&](const TravellingRow& one) { return key(one, false); });
    std::ranges::sort(leaving, {}, [&](const TravellingRow& one) { return key(one, true); });
    ASSERT_EQ(layout.leaving_from_arrival.size(), proxied.size());
    ASSERT_EQ(layout.arrival_from_leaving.size(), proxied.size());
    for (std::size_t i = 0; i < leaving.size(); ++i) {
        const auto from = static_cast<std::size_t>(layout.leaving_from_arrival[i]);
        EXPECT_EQ(key(arriving[from], true), key(leaving[i], true));
        EXPECT_EQ(layout.arrival_from_leaving[from], static_cast<i32>(i));
    }
}

TEST(NodeLayout, MatchesASearchOfAllRows) {
    for (const std::vector<int>& nodes :
         {std::vector<int>{0, 0, 1, 1}, {0, 1, 0, 1}, {0, 1, 2, 3}, {0, 0, 0, 0}}) {
        const NodeGrid grid = make_node_grid(nodes);
        for (const RoutingCase& routing : routing_cases(4, 8)) {
            for (const i64 capacity : {2, 7, 1000}) {
                for (i64 rank = 0; rank < 4; ++rank) {
                    for (const i64 round : {0, 1, 3}) {
                        SCOPED_TRACE(testing::Message()
                                     << testing::PrintToString(nodes) << ", " << routing.name << ", capacity "
                                     << capacity << ", rank " << rank << ", round " << round);
                        expect_layout(routing, grid, rank, round, capacity);
                    }
                }
            }
        }
    }
}

TEST(NodeLayout, FindsTheRowsOfATokenInOrder) {
    const DistinctTokens rows = distinct_tokens(std::vector<i32>{7, 3, 7, 0, 7});
    EXPECT_THAT(rows.tokens, testing::ElementsAre(0, 3, 7));
    EXPECT_THAT(rows.of_row, testing::ElementsAre(2, 1, 2, 0, 2));
    EXPECT_THAT(rows.ordinal, testing::ElementsAre(0, 0, 1, 0, 2));
    EXPECT_TRUE(distinct_tokens({}).tokens.empty());
}

TEST(NodeLayout, BoundsHoldTheWorstRouting) {
    const NodeGrid grid = make_node_grid(std::vector<int>{0, 0, 1, 1});
    const NodeSizes few = node_sizes(grid, 10, 3, 1000, 1);  // two experts a node
    EXPECT_EQ(few.choices_on_node, 2);
    EXPECT_EQ(few.proxied_in_all, 2 * 10 * 2);
    EXPECT_EQ(few.proxied, 40);
    EXPECT_EQ(few.tokens_arrived, 20);
    const NodeSizes many = node_sizes(grid, 10, 3, 7, 8);  // 7 rows a round for each of two ranks
    EXPECT_EQ(many.choices_on_node, 3);
    EXPECT_EQ(many.proxied, 14);
    EXPECT_EQ(many.tokens_arrived, 14);
}

}  // namespace
}  // namespace moesaic
