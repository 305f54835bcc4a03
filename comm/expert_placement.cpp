#include "comm/expert_placement.h"

#include <algorithm>
#include <numeric>

#include "comm/array_index.h"
#include "runtime/base/error.h"
#include "runtime/base/philox.h"

namespace moesaic {

namespace {

std::vector<i32> ascending(i64 count) {
    std::vector<i32> numbers(at(count));
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
}

int rank_of(const ExpertPlacement& placement, i64 expert, i64 experts_per_rank) {
    return static_cast<int>(placement.position_of[at(expert)] / experts_per_rank);
}

/// Experts in `ranks` bins of equal size. Of several bins that are as empty, the one that has the number of
/// the expert's rank comes first, then the lowest.
std::vector<std::vector<i32>> packed_by_load(const ExpertPlacement& now, std::span<const i64> counts,
                                             int ranks) {
    const i64 each = std::ssize(counts) / ranks;
    std::vector<i32> order = ascending(std::ssize(counts));
    std::ranges::stable_sort(order, std::ranges::greater(), [&](i32 expert) { return counts[at(expert)]; });
    std::vector<std::vector<i32>> bins(at(ranks));
    std::vector<i64> load(at(ranks), 0);
    for (const i32 expert : order) {
        int best = -1;
        const auto better = [&](int bin) {
            if (std::ssize(bins[at(bin)]) == each) return false;
            return best < 0 || load[at(bin)] < load[at(best)];
        };
        if (const int home = rank_of(now, expert, each); better(home)) best = home;
        for (int bin = 0; bin < ranks; ++bin) {
            if (better(bin)) best = bin;
        }
        bins[at(best)].push_back(expert);
        load[at(best)] += counts[at(expert)];
    }
    return bins;
}

/// Which bin each rank takes: pairs by falling number of experts that stay, then by rank and bin.
std::vector<int> bins_of_ranks(const ExpertPlacement& now, const std::vector<std::vector<i32>>& bins) {
    struct Pair {
        i64 staying = 0;
        int rank = 0, bin = 0;
    };
    const int ranks = static_cast<int>(bins.size());
    const i64 each = std::ssize(now.expert_at) / ranks;
    std::vector<Pair> pairs;
    for (int rank = 0; rank < ranks; ++rank) {
        for (int bin = 0; bin < ranks; ++bin) {
            const i64 staying = std::ranges::count_if(
                bins[at(bin)], [&](i32 expert) { return rank_of(now, expert, each) == rank; });
            pairs.push_back({staying, rank, bin});
        }
    }
    std::ranges::stable_sort(pairs, std::ranges::greater(), &Pair::staying);
    std::vector<int> bin_of_rank(bins.size(), -1);
    std::vector<bool> taken(bins.size(), false);
    for (const Pair& pair : pairs) {
        if (bin_of_rank[at(pair.rank)] >= 0 || taken[at(pair.bin)]) continue;
        bin_of_rank[at(pair.rank)] = pair.bin;
        taken[at(pair.bin)] = true;
    }
    return bin_of_rank;
}

/// Experts that stay on their rank keep their place there; the others take what is left, in ascending order.
ExpertPlacement fill_places(const ExpertPlacement& now, std::vector<std::vector<i32>> bins) {
    const auto bin_of_rank = bins_of_ranks(now, bins);
    const i64 each = std::ssize(now.expert_at) / std::ssize(bins);
    std::vector<i32> expert_at(now.expert_at.size(), -1);
    for (std::size_t rank = 0; rank < bins.size(); ++rank) {
        std::vector<i32>& experts = bins[at(bin_of_rank[rank])];
        std::ranges::sort(experts);
        std::vector<i32> arriving;
        for (const i32 expert : experts) {
            const i32 position = now.position_of[at(expert)];
            if (position / each == static_cast<i64>(rank)) {
                expert_at[at(position)] = expert;
            } else {
                arriving.push_back(expert);
            }
        }
        auto place = expert_at.begin() + static_cast<std::ptrdiff_t>(rank) * each;
        for (const i32 expert : arriving) {
            place = std::find(place, expert_at.end(), -1);
            *place = expert;
        }
    }
    return ExpertPlacement(std::move(expert_at));
}

}  // namespace

ExpertPlacement::ExpertPlacement(std::vector<i32> experts)
    : expert_at(std::move(experts)), position_of(expert_at.size(), -1) {
    for (i64 position = 0; position < std::ssize(expert_at); ++position) {
        const i32 expert = expert_at[at(position)];
        MOESAIC_ASSERT(expert >= 0 && expert < std::ssize(expert_at) && position_of[at(expert)] < 0,
                       "expert {} at position {} of {}", expert, position, expert_at.size());
        position_of[at(expert)] = static_cast<i32>(position);
    }
}

ExpertPlacement contiguous_placement(i64 experts) {
    return ExpertPlacement(ascending(experts));
}

ExpertPlacement permuted_placement(i64 experts, u64 seed, int layer) {
    const Philox random(seed, fmt::format("placement of layer {}", layer));
    std::vector<i32> order = ascending(experts);
    for (i64 left = experts; left > 1; --left) {  // Fisher and Yates
        const double drawn = random.uniform(static_cast<u64>(left)) * static_cast<double>(left);
        std::swap(order[at(left - 1)], order[at(std::min(static_cast<i64>(drawn), left - 1))]);
    }
    return ExpertPlacement(std::move(order));
}

std::vector<i64> loads_of_ranks(const ExpertPlacement& placement, std::span<const i64> counts, int ranks) {
    MOESAIC_ASSERT(counts.size() == placement.position_of.size() && std::ssize(counts) % ranks == 0,
                   "counts of {} experts, places for {} on {} ranks", counts.size(),
                   placement.position_of.size(), ranks);
    const i64 each = std::ssize(counts) / ranks;
    std::vector<i64> loads(at(ranks), 0);
    for (i64 expert = 0; expert < std::ssize(counts); ++expert)
        loads[at(rank_of(placement, expert, each))] += counts[at(expert)];
    return loads;
}

double rank_load_max_over_mean(const ExpertPlacement& placement, std::span<const i64> counts, int ranks) {
    const std::vector<i64> loads = loads_of_ranks(placement, counts, ranks);
    const i64 rows = std::reduce(loads.begin(), loads.end());
    if (rows == 0) return 1;
    return static_cast<double>(std::ranges::max(loads)) * ranks / static_cast<double>(rows);
}

ExpertPlacement placement_by_load(const ExpertPlacement& now, std::span<const i64> counts, int ranks,
                                  double least_gain) {
    const i64 fullest = std::ranges::max(loads_of_ranks(now, counts, ranks));
    ExpertPlacement next = fill_places(now, packed_by_load(now, counts, ranks));
    const i64 then = std::ranges::max(loads_of_ranks(next, counts, ranks));
    const double gain = static_cast<double>(fullest - then);
    return then < fullest && gain >= least_gain * static_cast<double>(fullest) ? next : now;
}

}  // namespace moesaic
