#include "runtime/metrics/load_summary.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moesaic {

LoadSummary summarize_load(std::span<const i64> load, i64 top_k) {
    LoadSummary summary;
    summary.dead = std::count(load.begin(), load.end(), 0);
    const auto experts = static_cast<double>(load.size());
    const auto total = static_cast<double>(std::accumulate(load.begin(), load.end(), i64{0}));
    if (load.empty() || total == 0) {
        summary.entropy = load.empty() ? 0 : std::log(experts);
        return summary;
    }
    const double mean = total / experts;
    double squares = 0;
    for (const i64 one : load) {
        const auto tokens = static_cast<double>(one);
        squares += (tokens - mean) * (tokens - mean);
        if (one > 0) summary.entropy -= tokens / total * std::log(tokens / total);
    }
    const double least = std::log(std::min(static_cast<double>(std::max<i64>(top_k, 1)), experts));
    const double span = std::log(experts) - least;
    if (span > 0) summary.evenness = std::clamp((summary.entropy - least) / span, 0.0, 1.0);
    const auto busiest = std::max_element(load.begin(), load.end());
    summary.busiest = busiest - load.begin();
    summary.max_over_mean = static_cast<double>(*busiest) / mean;
    summary.variation = std::sqrt(squares / experts) / mean;
    return summary;
}

}  // namespace moesaic
