// Every exchange of the table against an oracle without exchange: a row's numbers say which token it is of.
#include "comm/exchange/exchange.h"

#include "comm/exchange/choose_exchange.h"
#include "runtime/config/load.h"

#include <gtest/gtest.h>

#include <array>

#include "tests/support/exchange_expectations.h"
#include "tests/support/routing_cases.h"

namespace moesaic {
namespace {

constexpr double kReducedOnNode = 1e-14;  // relative, f64: a few roundings

void check_layout(const ExchangeLayout& layout, const std::vector<i64>& capacities = {1, 4, 13, 1000}) {
    for (const RoutingCase& routing : routing_cases(layout.ranks, layout.experts)) {
        for (const i64 capacity : capacities) {
            std::vector<ExchangeSeen> flat;
            for (const ExchangeSettings& settings : exchange_variants()) {
                SCOPED_TRACE(testing::Message()
                             << settings.name << (settings.reduce_on_node ? ", reduced on the node" : "")
                             << ", " << routing.name << ", ranks " << layout.ranks << ", nodes "
                             << testing::PrintToString(layout.node_of_rank) << ", experts " << layout.experts
                             << ", capacity " << capacity << ", seed " << layout.streams.seed
                             << (layout.own_rows_first ? ", own rows first" : ""));
                const auto seen = run_exchange(layout, settings, routing, capacity);
                if (flat.empty()) flat = seen;
                for (int rank = 0; rank < layout.ranks * layout.replicas; ++rank) {
                    const auto place = static_cast<std::size_t>(rank);
                    expect_oracle(seen[place], routing, rank % layout.ranks, capacity,
                                  settings.reduce_on_node ? kReducedOnNode : 0);
                    EXPECT_EQ(seen[place].d_weight, flat[place].d_weight);
                }
            }
        }
    }
    if (layout.experts == layout.ranks && !layout.own_rows_first) {
        ExchangeLayout own_rows_first = layout;
        own_rows_first.own_rows_first = true;
        check_layout(own_rows_first, capacities);
    }
}

TEST(Exchange, OneRank) {
    check_layout({.ranks = 1, .experts = 5});
}
TEST(Exchange, TwoRanks) {
    check_layout({.ranks = 2, .experts = 6});
}
TEST(Exchange, ThreeRanks) {
    check_layout({.ranks = 3, .experts = 6});
}
TEST(Exchange, ThreeRanksOfOneExpert) {
    check_layout({.ranks = 3, .experts = 3});
}
TEST(Exchange, FourRanks) {
    check_layout({.ranks = 4, .experts = 8});
}
TEST(Exchange, EightRanks) {
    check_layout({.ranks = 8, .experts = 16});
}
TEST(Exchange, TwoReplicasOfTwoRanks) {
    check_layout({.ranks = 2, .experts = 4, .replicas = 2});
}

TEST(Exchange, TwoRanksOnTwoNodes) {
    check_layout({.ranks = 2, .experts = 6, .node_of_rank = block_nodes(2, 1)});
}
TEST(Exchange, FourRanksOnTwoNodes) {
    check_layout({.ranks = 4, .experts = 8, .node_of_rank = block_nodes(4, 2)});
}
TEST(Exchange, FourRanksOnFourNodes) {
    check_layout({.ranks = 4, .experts = 4, .node_of_rank = block_nodes(4, 1)});
}
TEST(Exchange, FourRanksDealtOutToTwoNodes) {
    check_layout({.ranks = 4, .experts = 8, .node_of_rank = {0, 1, 0, 1}});
    check_layout({.ranks = 4, .experts = 4, .node_of_rank = {7, 3, 3, 7}}, {2, 1000});
}
TEST(Exchange, SixRanksOnTwoNodes) {
    check_layout({.ranks = 6, .experts = 6, .node_of_rank = block_nodes(6, 3)}, {3, 1000});
}
TEST(Exchange, EightRanksOnTwoNodes) {
    check_layout({.ranks = 8, .experts = 16, .node_of_rank = block_nodes(8, 4)}, {4, 1000});
}
TEST(Exchange, EightRanksOnFourNodes) {
    check_layout({.ranks = 8, .experts = 16, .node_of_rank = block_nodes(8, 2)}, {4, 1000});
}
TEST(Exchange, TwoReplicasOnTwoNodesEach) {
    check_layout({.ranks = 2, .experts = 4, .replicas = 2, .node_of_rank = block_nodes(4, 1)}, {4, 1000});
}

/// Only events and the pool's rules order what the streams do.
TEST(Exchange, DeferredStreams) {
    for (const u64 seed : std::array<u64, 4>{1, 2, 3, 4}) {
        const StreamChoice streams{StreamMode::deferred_shuffled, seed};
        check_layout({.ranks = 1, .experts = 4, .streams = streams}, {4, 1000});
        check_layout({.ranks = 2, .experts = 6, .streams = streams}, {4, 1000});
        check_layout({.ranks = 3, .experts = 3, .streams = streams}, {4, 1000});
        check_layout({.ranks = 4, .experts = 8, .node_of_rank = block_nodes(4, 2), .streams = streams},
                     {4, 1000});
    }
}

TEST(Exchange, ReducedOnTheNodeTheSameBitsEveryTime) {
    const ExchangeLayout layout{.ranks = 4, .experts = 8, .node_of_rank = block_nodes(4, 2)};
    for (const RoutingCase& routing : routing_cases(4, 8)) {
        const ExchangeSettings settings{.name = "dedup", .reduce_on_node = true};
        const auto first = run_exchange(layout, settings, routing, 5);
        const auto second = run_exchange(layout, settings, routing, 5);
        for (std::size_t rank = 0; rank < 4; ++rank) {
            EXPECT_EQ(first[rank].y, second[rank].y);
            EXPECT_EQ(first[rank].dx, second[rank].dx);
        }
    }
}

TEST(Exchange, RefusesNodesOfUnequalSize) {
    for (const ExchangeKind& kind : exchange_table()) {
        const auto make = [&] {
            run_ranks(3, [&](Communicator& world) {
                RankSetup setup(world, 3, 3, {}, std::vector<int>{0, 0, 1});
                (void)make_exchange(setup.mesh, {}, {.name = std::string(kind.name)});
            });
        };
        if (!kind.needs_even_nodes) {
            EXPECT_NO_THROW(make()) << kind.name;
            continue;
        }
        try {
            make();
            ADD_FAILURE() << kind.name << " was made";
        } catch (const UserError& error) {
            EXPECT_THAT(error.what(), testing::HasSubstr("nodes of 2, 1 ranks; flat works on any"));
        }
    }
}

TEST(Exchange, TheConfigurationKnowsTheTable) {
    for (const ExchangeKind& kind : exchange_table()) {
        const std::string word = fmt::format("parallel.exchange={}", kind.name);
        EXPECT_EQ(parse_config("", "c.yaml", std::vector<std::string>{word}).diagnostics.text(), "") << word;
    }
}

TEST(Exchange, StreamsWithThreads) {
    const StreamChoice streams{StreamMode::threads, 0};
    check_layout({.ranks = 1, .experts = 4, .streams = streams});
    check_layout({.ranks = 2, .experts = 6, .streams = streams});
    check_layout({.ranks = 4, .experts = 8, .streams = streams});
}

TEST(Exchange, NamesWhatThereIs) {
    run_ranks(1, [](Communicator& world) {
        RankSetup setup(world, 1, 2);
        try {
            (void)make_exchange(setup.mesh, {}, {.name = "telepathy"});
            FAIL() << "an unknown exchange was made";
        } catch (const UserError& error) {
            EXPECT_THAT(error.what(), testing::HasSubstr("'telepathy' is no exchange; there are flat"));
        }
    });
}

/// Of 4 ranks of one group, `per_node` on each simulated node; the same on all.
ExchangeChoice choice_of_auto(int per_node, std::optional<DType> wire) {
    std::vector<ExchangeChoice> choices(4);
    run_ranks(4, [&](Communicator& world) {
        RankSetup setup(world, 4, 8, {}, per_node);
        const ExchangeSizes sizes{.tokens = 64, .choices = 2, .width = 32, .capacity_rows = 256};
        choices[static_cast<std::size_t>(world.rank())] =
            choose_exchange(setup.context, sizes, {.name = "auto", .reduce_on_node = false, .wire = wire});
    });
    for (const ExchangeChoice& one : choices) EXPECT_EQ(one.text(), choices.front().text());
    return choices.front();
}

/// Every rank names the same exchange, of those that give flat's bits and can be faster.
TEST(Exchange, AutoMeasuresWhereThereIsAChoice) {
    struct Case {
        int per_node;
        std::optional<DType> wire;
        std::vector<std::string> measured;
    };
    const std::vector<std::string> by_node{"flat", "hierarchical", "dedup"};
    for (const auto& [per_node, wire, measured] :
         {Case{4, std::nullopt, {"flat", "shared_memory"}}, Case{4, DType::bf16, {}},
          Case{2, DType::bf16, by_node}, Case{1, std::nullopt, {"flat", "dedup"}}}) {
        const ExchangeChoice choice = choice_of_auto(per_node, wire);
        std::vector<std::string> names;
        double best = 1e9, chosen = measured.empty() ? 0 : 1e9;
        for (const ExchangeTiming& one : choice.measured) {
            names.push_back(one.name);
            best = std::min(best, one.milliseconds);
            if (one.name == choice.settings.name) chosen = one.milliseconds;
            EXPECT_THAT(choice.text(), testing::HasSubstr(one.name));
        }
        EXPECT_EQ(names, measured);
        EXPECT_LE(chosen, best * 1.1);
        EXPECT_FALSE(choice.settings.reduce_on_node);
        EXPECT_EQ(choice.settings.wire, wire);
    }
}

}  // namespace
}  // namespace moesaic
