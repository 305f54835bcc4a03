#include "launch/slowest_rank.h"

#include <algorithm>
#include <numeric>

namespace moesaic {

namespace {

double sum_of(const OwnWork& work) {
    return std::accumulate(work.begin(), work.end(), 0.0);
}

std::string phase_name(std::size_t phase) {
    return phase < kWorkPhases ? std::string(name_of(static_cast<WorkPhase>(phase))) : "other";
}

}  // namespace

std::optional<SlowestRank> find_slowest_rank(std::span<const OwnWork> work) {
    OwnWork mean{};
    for (const OwnWork& rank : work) {
        for (std::size_t phase = 0; phase < mean.size(); ++phase)
            mean[phase] += rank[phase] / static_cast<double>(work.size());
    }
    if (!(sum_of(mean) > 0)) return {};
    const auto slowest = std::ranges::max_element(work, {}, sum_of);
    OwnWork excess{};
    for (std::size_t phase = 0; phase < mean.size(); ++phase) excess[phase] = (*slowest)[phase] - mean[phase];
    const auto phase = std::ranges::max_element(excess) - excess.begin();
    return SlowestRank{slowest - work.begin(), phase_name(static_cast<std::size_t>(phase)), sum_of(excess)};
}

std::vector<OwnWork> gather_work(Communicator& world, Stream& stream, OwnWork mine) {
    constexpr i64 kParts = std::tuple_size_v<OwnWork>;
    std::vector<OwnWork> all(static_cast<std::size_t>(world.size()));
    world.all_gather(stream, view_of(mine.data(), {kParts}),
                     view_of(all.front().data(), {kParts * world.size()}), {"work of ranks"});
    stream.synchronize();
    return all;
}

}  // namespace moesaic
