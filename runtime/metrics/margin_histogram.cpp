#include "runtime/metrics/margin_histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace moesaic {

void MarginHistogram::add(std::span<const double> margins) {
    for (const double margin : margins) {
        if (std::isnan(margin) || (std::isinf(margin) && margin > 0)) continue;
        const double place = std::clamp((margin - kLeast) / kWidth, 0.0, static_cast<double>(kBins - 1));
        ++counts_[static_cast<std::size_t>(place)];
    }
}

i64 MarginHistogram::total() const {
    return std::reduce(counts_.begin(), counts_.end(), i64{0});
}

double MarginHistogram::quantile(double share) const {
    const auto all = static_cast<double>(total());
    if (all == 0) return std::numeric_limits<double>::quiet_NaN();
    double left = std::clamp(share, 0.0, 1.0) * all, edge = kLeast;
    for (const i64 count : counts_) {
        const auto here = static_cast<double>(count);
        if (here > 0 && left <= here) return edge + kWidth * left / here;
        left -= here;
        edge += kWidth;
    }
    return edge;
}

}  // namespace moesaic
