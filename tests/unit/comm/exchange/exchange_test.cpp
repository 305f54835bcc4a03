// Every exchange of the table against an oracle without exchange: a row's numbers say which token it is of.
#include "comm/exchange/exchange.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "tests/support/exchange_bench.h"
#include "tests/support/routing_cases.h"

namespace moesaic {
namespace {

void check_layout(const ExchangeLayout& layout) {
    for (const ExchangeKind& kind : exchange_table()) {
        for (const RoutingCase& routing : routing_cases(layout.ranks, layout.experts)) {
            for (const i64 capacity : {1, 4, 13, 1000}) {
                SCOPED_TRACE(testing::Message()
                             << kind.name << ", " << routing.name << ", ranks " << layout.ranks
                             << ", experts " << layout.experts << ", capacity " << capacity << ", seed "
                             << layout.streams.seed);
                const auto seen = run_exchange(layout, {std::string(kind.name)}, routing, capacity);
                for (int replica = 0; replica < layout.replicas; ++replica) {
                    for (int rank = 0; rank < layout.ranks; ++rank) {
                        const auto place = static_cast<std::size_t>(replica * layout.ranks + rank);
                        expect_oracle(seen[place], routing, rank, capacity);
                    }
                }
            }
        }
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

/// Only events and the pool's rules order what the streams do.
TEST(Exchange, DeferredStreams) {
    for (const u64 seed : std::array<u64, 4>{1, 2, 3, 4}) {
        const StreamChoice streams{StreamMode::deferred_shuffled, seed};
        check_layout({.ranks = 1, .experts = 4, .streams = streams});
        check_layout({.ranks = 2, .experts = 6, .streams = streams});
        check_layout({.ranks = 4, .experts = 8, .streams = streams});
        check_layout({.ranks = 3, .experts = 3, .streams = streams});
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
        const RankSetup setup(world, 1, 2);
        try {
            (void)make_exchange(setup.mesh, {}, {"telepathy"});
            FAIL() << "an unknown exchange was made";
        } catch (const UserError& error) {
            EXPECT_THAT(error.what(), testing::HasSubstr("'telepathy' is no exchange; there are flat"));
        }
    });
}

}  // namespace
}  // namespace moesaic
