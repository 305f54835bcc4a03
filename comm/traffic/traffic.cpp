#include "comm/traffic/traffic.h"

#include <algorithm>
#include <numeric>

#include "runtime/base/error.h"

namespace moesaic {

i64 RankMatrix::sent_by(int rank) const {
    const auto row = amount.begin() + static_cast<std::ptrdiff_t>(rank) * ranks;
    return std::accumulate(row, row + ranks, i64{0});
}

i64 RankMatrix::received_by(int rank) const {
    i64 sum = 0;
    for (int from = 0; from < ranks; ++from) sum += at(from, rank);
    return sum;
}

i64 RankMatrix::busiest() const {
    i64 most = 0;
    for (int rank = 0; rank < ranks; ++rank) most = std::max({most, sent_by(rank), received_by(rank)});
    return most;
}

i64 TrafficPattern::tokens_of_rank(int) const {
    return shape_.tokens_per_rank;
}

std::optional<RankMatrix> TrafficPattern::rank_bytes(i64, i64) const {
    return {};
}

i64 TrafficPattern::first_token(int rank) const {
    i64 first = 0;
    for (int before = 0; before < rank; ++before) first += tokens_of_rank(before);
    return first;
}

RankMatrix count_rows(const TrafficPattern& traffic, i64 step, int layer) {
    const PatternShape& shape = traffic.shape();
    MOESAIC_ASSERT(shape.experts % shape.ranks == 0, "{} experts on {} ranks", shape.experts, shape.ranks);
    const i64 local_experts = shape.experts / shape.ranks;
    RankMatrix rows{shape.ranks, std::vector<i64>(static_cast<std::size_t>(shape.ranks * shape.ranks))};
    i64 first = 0;
    for (int rank = 0; rank < shape.ranks; ++rank) {
        const i64 tokens = traffic.tokens_of_rank(rank);
        std::vector<i32> experts(static_cast<std::size_t>(tokens * shape.top_k));
        traffic.route(step, layer, first, tokens, experts);
        for (const i32 expert : experts)
            ++rows.amount[static_cast<std::size_t>(rank * shape.ranks + expert / local_experts)];
        first += tokens;
    }
    return rows;
}

}  // namespace moesaic
