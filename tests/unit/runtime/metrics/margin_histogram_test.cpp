// Quantiles of margins against the sorted margins themselves.
#include "runtime/metrics/margin_histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/base/philox.h"

namespace moesaic {
namespace {

TEST(MarginHistogram, QuantilesAreThoseOfTheMarginsToABin) {
    const Philox random(3, "margins");
    std::vector<double> margins;
    for (u64 i = 0; i < 5000; ++i) margins.push_back(4 + 6 * random.normal(i));
    MarginHistogram whole, first, second;
    whole.add(margins);
    first.add(std::span(margins).first(1700));
    second.add(std::span(margins).subspan(1700));
    for (std::size_t i = 0; i < first.counts().size(); ++i) first.counts()[i] += second.counts()[i];
    EXPECT_EQ(first.counts(), whole.counts()) << "parts of several ranks add up exactly";
    std::sort(margins.begin(), margins.end());
    for (const double share : {0.05, 0.25, 0.5, 0.75, 0.95}) {
        const double want = margins[static_cast<std::size_t>(share * 5000)];
        EXPECT_NEAR(whole.quantile(share), want, 2 * MarginHistogram::kWidth) << share;
    }
    EXPECT_EQ(whole.total(), 5000);
}

TEST(MarginHistogram, MaskedTargetsDoNotCountAndOutliersCountAtTheEdge) {
    MarginHistogram margins;
    EXPECT_TRUE(std::isnan(margins.quantile(0.5)));
    const double infinite = std::numeric_limits<double>::infinity();
    margins.add(std::vector{infinite, std::nan(""), -infinite, 1e9, 0.0});
    EXPECT_EQ(margins.total(), 3);
    EXPECT_LT(margins.quantile(0.2), -49.9);
    EXPECT_NEAR(margins.quantile(0.5), 0, 0.05);
    EXPECT_GT(margins.quantile(0.9), 49.9);
}

}  // namespace
}  // namespace moesaic
