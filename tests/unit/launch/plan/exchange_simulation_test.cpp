// The simulated exchange: times that can be reckoned by hand, and bytes that the closed forms know.
#include "launch/plan/exchange_simulation.h"

#include <gtest/gtest.h>

#include <numeric>

#include "comm/exchange/expected_traffic.h"

namespace moesaic {
namespace {

// A microsecond and a byte a nanosecond; between nodes ten and four.
constexpr LinkProfile kNode{1, 1}, kNetwork{10, 0.25};

RankMatrix all_alike(int ranks, i64 bytes) {
    return {ranks, std::vector<i64>(static_cast<std::size_t>(ranks * ranks), bytes)};
}

double microseconds(const RankMatrix& bytes, int ranks_per_node) {
    return 1e6 * simulate_exchange(bytes, ranks_per_node, kNode, kNetwork).seconds;
}

TEST(ExchangeSimulation, TakesWhatOneReckonsByHand) {
    RankMatrix one{2, {7, 3000, 0, 9}};  // 3000 bytes from rank 0 to rank 1; what stays costs nothing
    EXPECT_NEAR(microseconds(one, 2), 1 + 3, 1e-9);
    EXPECT_NEAR(microseconds(one, 1), 10 + 12, 1e-9);
    EXPECT_EQ(microseconds({2, {5, 0, 0, 5}}, 2), 0);
    EXPECT_EQ(microseconds({1, {5}}, 1), 0);
    // In a ring nobody is in anybody's way: three messages one after the other.
    EXPECT_NEAR(microseconds(all_alike(4, 2000), 4), 3 * (1 + 2), 1e-9);
    // Ranks 0 and 1 both begin with rank 2, and ranks 2 and 3 with rank 0: two messages each take three
    // turns.
    EXPECT_NEAR(microseconds(all_alike(4, 2000), 2), 3 * (10 + 8), 1e-9);
}

TEST(ExchangeSimulation, EverybodyToOneWaitsForItsPort) {
    RankMatrix hot = all_alike(5, 0);
    for (int rank = 1; rank < 5; ++rank) hot.amount[static_cast<std::size_t>(5 * rank)] = 1000;
    EXPECT_NEAR(microseconds(hot, 5), 4 * (1 + 1), 1e-9);
    EXPECT_NEAR(simulate_exchange(hot, 5, kNode, kNetwork).busiest_over_mean, 5, 1e-12);
}

TEST(ExchangeSimulation, AnEmptyRankAndAnEmptyWorldAreLegal) {
    RankMatrix uneven{3, {0, 10, 10, 0, 0, 0, 10, 10, 0}};  // rank 1 sends nothing
    EXPECT_GT(microseconds(uneven, 3), 0);
    EXPECT_EQ(simulate_exchange(all_alike(8, 0), 4, kNode, kNetwork).seconds, 0);
    EXPECT_EQ(simulate_exchange(all_alike(8, 0), 4, kNode, kNetwork).busiest_over_mean, 1);
}

DeviceProfile test_device() {
    DeviceProfile device;
    device.node = kNode;
    device.network = kNetwork;
    return device;
}

/// As many tokens as make every expert's load the same, so that nothing is left to chance.
PatternShape even_shape(int ranks) {
    PatternShape shape;
    shape.experts = 16;
    shape.top_k = 2;
    shape.ranks = ranks;
    shape.tokens_per_rank = 512;
    return shape;
}

TEST(ExchangeSimulation, BytesAreThoseOfTheClosedForms) {
    constexpr i64 kRowBytes = 256;
    for (const auto& [ranks, per_node] :
         {std::pair(2, 2), std::pair(8, 8), std::pair(8, 4), std::pair(16, 2)}) {
        const PatternShape shape = even_shape(ranks);
        const RoutedRows rows = route_rows("uniform", shape, per_node);
        for (const char* name : {"flat", "hierarchical"}) {
            SCOPED_TRACE(fmt::format("{} on {} ranks, {} a node", name, ranks, per_node));
            const SimulatedExchange got = simulate_layer(name, rows, kRowBytes, per_node, test_device());
            ExchangeSettings settings;
            settings.name = name;
            TrafficShape closed;
            closed.tokens = static_cast<double>(ranks * shape.tokens_per_rank);
            closed.choices = shape.top_k;
            closed.experts = shape.experts;
            closed.nodes = ranks / per_node;
            closed.ranks_per_node = per_node;
            closed.row_bytes = kRowBytes;
            ExpectedBytes want;
            for (const ExpectedBytes& line : expected_traffic(settings, closed)) {
                want.self += line.self;
                want.same_node += line.same_node;
                want.cross_node += line.cross_node;
            }
            if (rows.fullest_over_mean() == 1) {
                EXPECT_EQ(static_cast<double>(got.same_node_bytes), want.same_node);
                EXPECT_EQ(static_cast<double>(got.cross_node_bytes), want.cross_node);
                EXPECT_EQ(static_cast<double>(got.self_bytes), want.self);
            } else {
                ADD_FAILURE() << "uneven: " << rows.fullest_over_mean();
            }
        }
    }
}

TEST(ExchangeSimulation, DedupSendsATokenToANodeOnce) {
    const RoutedRows rows = route_rows("uniform", even_shape(8), 4);
    for (int rank = 0; rank < 8; ++rank) {
        for (int node = 0; node < 2; ++node) {
            i64 choices = 0;
            for (int to = 4 * node; to < 4 * node + 4; ++to) choices += rows.choices.at(rank, to);
            const i64 tokens = rows.to_nodes[static_cast<std::size_t>(2 * rank + node)];
            EXPECT_LE(tokens, choices);
            EXPECT_GE(2 * tokens, choices) << "two choices a token";
        }
    }
    const auto bytes = [&](const char* name) {
        return simulate_layer(name, rows, 256, 4, test_device()).cross_node_bytes;
    };
    EXPECT_LT(bytes("dedup"), bytes("hierarchical"));
    EXPECT_EQ(bytes("flat"), bytes("hierarchical"));
}

TEST(ExchangeSimulation, SkewTakesLonger) {
    const PatternShape shape = even_shape(8);
    const auto seconds = [&](const char* traffic) {
        return simulate_layer("flat", route_rows(traffic, shape, 8), 4096, 8, test_device()).seconds;
    };
    const RoutedRows skewed = route_rows("zipf:1.2", shape, 8);
    EXPECT_GT(skewed.fullest_over_mean(), 1.5);
    EXPECT_GT(seconds("zipf:1.2"), 1.3 * seconds("uniform"));
}

TEST(ExchangeSimulation, VeryManyTokensAreSampled) {
    PatternShape shape = even_shape(8);
    shape.tokens_per_rank = i64{1} << 20;
    const RoutedRows rows = route_rows("uniform", shape, 8);
    EXPECT_GT(rows.scale, 1);
    const i64 counted = std::reduce(rows.received.begin(), rows.received.end());
    EXPECT_NEAR(static_cast<double>(counted) * rows.scale,
                static_cast<double>(8 * shape.tokens_per_rank * shape.top_k), 1);
}

}  // namespace
}  // namespace moesaic
