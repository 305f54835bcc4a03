#include "launch/bench/bench_world.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "runtime/machine/cpu_facts.h"

namespace moesaic {

namespace {

/// As it travels: one row of bytes per rank.
struct PackedFacts {
    i64 process, node;
    char host[128], processor[120];
};

}  // namespace

int BenchWorld::nodes() const {
    int most = 0;
    for (const BenchRank& rank : ranks) most = std::max(most, rank.node);
    return most + 1;
}

BenchWorld gather_bench_world(Communicator& world, int ranks_per_node) {
    PackedFacts mine{};
    mine.process = ::getpid();
    mine.node = world.topology().node;
    ::gethostname(mine.host, sizeof mine.host - 1);
    std::strncpy(mine.processor, read_cpu_facts("").model.c_str(), sizeof mine.processor - 1);
    std::vector<PackedFacts> all(static_cast<std::size_t>(world.size()));
    constexpr i64 kWords = sizeof(PackedFacts) / sizeof(i64);
    static_assert(kWords * sizeof(i64) == sizeof(PackedFacts));
    HostStreamScheduler scheduler(StreamMode::inline_execution);
    const auto stream = scheduler.make_stream("facts");
    world.all_gather(*stream, view_of(reinterpret_cast<const i64*>(&mine), {1, kWords}),
                     view_of(reinterpret_cast<i64*>(all.data()), {world.size(), kWords}),
                     {"ranks of the benchmark"});
    stream->synchronize();
    BenchWorld result;
    std::map<int, int> seen;  // ranks of a node so far
    for (const PackedFacts& facts : all) {
        BenchRank rank{facts.process, facts.host, facts.processor, 0, 0};
        const auto number = static_cast<int>(result.ranks.size());
        rank.node = ranks_per_node > 0 ? number / ranks_per_node : static_cast<int>(facts.node);
        rank.local_rank = seen[rank.node]++;
        result.ranks.push_back(std::move(rank));
    }
    return result;
}

TravelSplit split_by_distance(const RankMatrix& matrix, const BenchWorld& world) {
    TravelSplit split;
    for (int from = 0; from < matrix.ranks; ++from) {
        for (int to = 0; to < matrix.ranks; ++to) {
            const bool same = world.ranks[static_cast<std::size_t>(from)].node ==
                              world.ranks[static_cast<std::size_t>(to)].node;
            (from == to ? split.self : same ? split.same_node : split.cross_node) += matrix.at(from, to);
        }
    }
    return split;
}

double imbalance_of(const RankMatrix& matrix) {
    i64 most = 0, all = 0;
    for (int rank = 0; rank < matrix.ranks; ++rank) {
        most = std::max(most, matrix.received_by(rank));
        all += matrix.received_by(rank);
    }
    return all == 0 ? 1.0 : static_cast<double>(most) * matrix.ranks / static_cast<double>(all);
}

}  // namespace moesaic
