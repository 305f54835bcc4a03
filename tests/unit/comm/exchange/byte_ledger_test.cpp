// What the ledger says that every exchange sent, against a count of the routed rows one by one.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "comm/node_grid.h"
#include "tests/support/exchange_bench.h"

namespace moesaic {
namespace {

constexpr i64 kRowBytes = kExchangeWidth * 8, kPlaceBytes = 12;  // f64: a token's number and a weight

/// Counts what one rank has to send, row by row, by where it goes.
class Count {
  public:
    Count(const RoutingCase& routing, const NodeGrid& grid, int rank, i64 capacity)
        : routing_(routing), grid_(grid), rank_(rank) {
        std::map<i64, i64> received;  // by receiver
        for (const RoutedRow& row : routing.grouped())
            rows_.push_back({row, received[receiver(row)]++ / capacity});
        choices_on_node_ = std::min<i64>(routing.choices, grid.ranks_per_node() * routing.local_experts());
    }

    std::map<std::string_view, SentBytes> flat() {
        counts();
        for (const Placed& one : rows_) {
            if (one.row.source == rank_) there(receiver(one.row), kRowBytes);
            if (receiver(one.row) == rank_) back(one.row.source, kRowBytes);
        }
        return sent_;
    }
    std::map<std::string_view, SentBytes> by_node(bool once, bool reduce) {
        counts();
        std::set<std::tuple<i64, i64, int, i64>> seen;  // round, source, node, token
        for (const Placed& one : rows_) {
            const i64 source = one.row.source, expert_rank = receiver(one.row);
            const int node = grid_.node_of[static_cast<std::size_t>(expert_rank)];
            const i64 proxy = grid_.rank_at(node, grid_.local_of[static_cast<std::size_t>(source)]);
            const bool first = seen.insert({one.round, source, node, one.row.token}).second;
            if (source == rank_) {
                if (!once || first) there(proxy, kRowBytes);
                if (once) add(kPlacesPhase, proxy, kPlaceBytes);
            }
            if (proxy == rank_) {
                there(expert_rank, kRowBytes);
                if (!reduce || first) back(source, kRowBytes);
                if (reduce && first) add(kCombineBackwardPhase, source, choices_on_node_ * 8);
            }
            if (expert_rank == rank_) back(proxy, kRowBytes);
        }
        return sent_;
    }

  private:
    struct Placed {
        RoutedRow row;
        i64 round;
    };
    [[nodiscard]] i64 receiver(const RoutedRow& row) const { return routing_.receiver(row); }
    void counts() {
        for (i64 rank = 0; rank < routing_.ranks; ++rank) add(kCountsPhase, rank, routing_.experts * 8);
    }
    void there(i64 to, i64 bytes) {
        add(kDispatchPhase, to, bytes);
        add(kCombineBackwardPhase, to, bytes);
    }
    void back(i64 to, i64 bytes) {
        add(kCombinePhase, to, bytes);
        add(kDispatchBackwardPhase, to, bytes);
    }
    void add(std::string_view phase, i64 to, i64 bytes) {
        SentBytes& sent = sent_[phase];
        const auto node = [&](i64 rank) { return grid_.node_of[static_cast<std::size_t>(rank)]; };
        (to == rank_ ? sent.self : node(to) == node(rank_) ? sent.same_node : sent.cross_node) += bytes;
    }

    const RoutingCase& routing_;
    const NodeGrid& grid_;
    int rank_;
    i64 choices_on_node_;
    std::vector<Placed> rows_;
    std::map<std::string_view, SentBytes> sent_;
};

/// In words; empty where the ledger is the count.
std::string differences(const std::vector<TrafficLedger::Line>& ledger,
                        std::map<std::string_view, SentBytes> expected) {
    const auto text = [](const SentBytes& bytes) {
        return fmt::format("{} to itself, {} on the node, {} to others", bytes.self, bytes.same_node,
                           bytes.cross_node);
    };
    std::string all;
    for (const TrafficLedger::Line& line : ledger) {
        if (!(line.bytes == expected[line.operation]))
            all += fmt::format("{}: {}, not {}\n", line.operation, text(line.bytes),
                               text(expected[line.operation]));
        expected.erase(line.operation);
    }
    for (const auto& [phase, bytes] : expected) {
        if (!(bytes == SentBytes{})) all += fmt::format("{} is missing\n", phase);
    }
    return all;
}

void expect_ledger(const ExchangeLayout& layout, const RoutingCase& routing, i64 capacity) {
    const NodeGrid grid = make_node_grid(layout.node_of_rank);
    for (const ExchangeSettings& settings : exchange_variants()) {
        const auto seen = run_exchange(layout, settings, routing, capacity);
        for (int rank = 0; rank < layout.ranks; ++rank) {
            SCOPED_TRACE(testing::Message()
                         << settings.name << " " << settings.reduce_on_node << ", " << routing.name
                         << ", capacity " << capacity << ", rank " << rank);
            Count count(routing, grid, rank, capacity);
            auto expected = settings.name == "flat" || settings.name == "shared_memory" || grid.nodes == 1
                                ? count.flat()
                                : count.by_node(settings.name == "dedup", settings.reduce_on_node);
            EXPECT_EQ(differences(seen[static_cast<std::size_t>(rank)].sent, expected), "");
        }
    }
}

TEST(ByteLedger, IsTheCountOfRowsOfEveryExchange) {
    for (const auto& [ranks, per_node] : {std::pair{2, 2}, {2, 1}, {4, 2}, {4, 1}, {8, 4}, {8, 2}}) {
        for (const RoutingCase& routing : routing_cases(ranks, 2 * ranks)) {
            for (const i64 capacity : {3, 1000}) {
                SCOPED_TRACE(testing::Message() << ranks << " ranks, " << per_node << " a node");
                expect_ledger(
                    {.ranks = ranks, .experts = 2 * ranks, .node_of_rank = block_nodes(ranks, per_node)},
                    routing, capacity);
            }
        }
    }
}

/// One row too many, one counted as nearer than it was, one phase forgotten: the comparison sees each.
TEST(ByteLedger, PlantedFaultsAreSeen) {
    const RoutingCase routing = routing_cases(4, 8).front();
    const ExchangeLayout layout{.ranks = 4, .experts = 8, .node_of_rank = block_nodes(4, 2)};
    const NodeGrid grid = make_node_grid(layout.node_of_rank);
    for (const char* name : {"flat", "hierarchical", "dedup", "shared_memory"}) {
        SCOPED_TRACE(name);
        const auto seen = run_exchange(layout, {.name = name}, routing, 1000);
        Count count(routing, grid, 0, 1000);
        const bool by_nodes = std::string_view(name) == "hierarchical" || std::string_view(name) == "dedup";
        const auto expected =
            by_nodes ? count.by_node(std::string_view(name) == "dedup", false) : count.flat();
        const std::vector<TrafficLedger::Line>& honest = seen[0].sent;
        ASSERT_EQ(differences(honest, expected), "");
        for (std::size_t i = 0; i < honest.size(); ++i) {
            auto too_many = honest, too_near = honest, forgotten = honest;
            too_many[i].bytes.same_node += kRowBytes;
            EXPECT_NE(differences(too_many, expected), "") << honest[i].operation;
            forgotten.erase(forgotten.begin() + static_cast<std::ptrdiff_t>(i));
            EXPECT_NE(differences(forgotten, expected), "") << honest[i].operation;
            if (honest[i].bytes.cross_node == 0) continue;
            too_near[i].bytes.cross_node -= kRowBytes;
            too_near[i].bytes.same_node += kRowBytes;
            EXPECT_NE(differences(too_near, expected), "") << honest[i].operation;
        }
    }
}

/// Tokens choose 8 of 64 experts at random, as fine-grained models do.
RoutingCase top_8_of_64(int ranks) {
    return detail::random_case("top 8 of 64", ranks, 64, 8,
                               std::vector<i64>(static_cast<std::size_t>(ranks), 200), 0.0, -1);
}

SentBytes rows_of(const std::vector<ExchangeSeen>& seen) {
    SentBytes sum;
    for (const ExchangeSeen& rank : seen) {
        for (const TrafficLedger::Line& line : rank.sent) {
            if (line.operation != kCountsPhase) sum += line.bytes;
        }
    }
    return sum;
}

TEST(ByteLedger, DedupSendsFewerBytesAcrossNodes) {
    for (const auto& [ranks, per_node] : {std::pair{4, 2}, {8, 4}, {8, 2}}) {
        const RoutingCase routing = top_8_of_64(ranks);
        const ExchangeLayout layout{
            .ranks = ranks, .experts = 64, .node_of_rank = block_nodes(ranks, per_node)};
        std::map<std::string, SentBytes> bytes;
        for (const ExchangeSettings& settings : exchange_variants()) {
            const std::string name = settings.name + (settings.reduce_on_node ? " (node)" : "");
            bytes[name] = rows_of(run_exchange(layout, settings, routing, 100000));
            std::printf("top 8 of 64, %d ranks on %d nodes: %-14s same node %9lld, cross node %9lld bytes\n",
                        ranks, ranks / per_node, name.c_str(), static_cast<long long>(bytes[name].same_node),
                        static_cast<long long>(bytes[name].cross_node));
        }
        EXPECT_EQ(bytes["hierarchical"].cross_node, bytes["flat"].cross_node);
        EXPECT_LT(bytes["dedup"].cross_node, bytes["flat"].cross_node);
        EXPECT_LT(bytes["dedup (node)"].cross_node, bytes["dedup"].cross_node);
    }
}

/// The ledger that `train --check` prints in advance, against what random routing sends.
TEST(ByteLedger, IsForetoldAtUniformRouting) {
    for (const auto& [ranks, per_node] : {std::pair{4, 4}, {4, 2}, {4, 1}, {8, 2}}) {
        const RoutingCase routing = top_8_of_64(ranks);
        const ExchangeLayout layout{
            .ranks = ranks, .experts = 64, .node_of_rank = block_nodes(ranks, per_node)};
        TrafficShape shape;
        shape.tokens = 200.0 * ranks;
        shape.choices = 8;
        shape.experts = 64;
        shape.nodes = ranks / per_node;
        shape.ranks_per_node = per_node;
        shape.row_bytes = kRowBytes;
        shape.weight_bytes = 8;
        for (const ExchangeSettings& settings : exchange_variants()) {
            std::map<std::string_view, SentBytes> sent;
            for (const ExchangeSeen& rank : run_exchange(layout, settings, routing, 100000)) {
                for (const TrafficLedger::Line& line : rank.sent) sent[line.operation] += line.bytes;
            }
            for (const ExpectedBytes& line : expected_traffic(settings, shape)) {
                SCOPED_TRACE(testing::Message() << settings.name << " " << settings.reduce_on_node << " on "
                                                << shape.nodes << " nodes, " << line.phase);
                const SentBytes& bytes = sent.at(line.phase);
                EXPECT_NEAR(static_cast<double>(bytes.self), line.self, 0.05 * line.self);
                EXPECT_NEAR(static_cast<double>(bytes.same_node), line.same_node, 0.05 * line.same_node);
                EXPECT_NEAR(static_cast<double>(bytes.cross_node), line.cross_node, 0.05 * line.cross_node);
            }
        }
    }
}

}  // namespace
}  // namespace moesaic
