// Who takes part in a benchmark and on which node: for the lines above a table, and for counting bytes.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/traffic/traffic.h"

namespace moesaic {

struct BenchRank {
    i64 process = 0;
    std::string host, processor;
    int node = 0, local_rank = 0;  ///< as the communicator knows, or simulated
};

struct BenchWorld {
    std::vector<BenchRank> ranks;
    [[nodiscard]] int nodes() const;
};
/// Collective over `world`. With `ranks_per_node` > 0 nodes are simulated: ranks in blocks of that many.
[[nodiscard]] BenchWorld gather_bench_world(Communicator& world, int ranks_per_node);

/// Amounts of a matrix by how far they travel.
struct TravelSplit {
    i64 self = 0, same_node = 0, cross_node = 0;
};
[[nodiscard]] TravelSplit split_by_distance(const RankMatrix& matrix, const BenchWorld& world);
/// The most that a rank receives over the mean; 1 is even, and where nobody receives.
[[nodiscard]] double imbalance_of(const RankMatrix& matrix);

}  // namespace moesaic
