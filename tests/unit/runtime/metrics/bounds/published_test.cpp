// The published expression: oracles, the exact binomial, and the experiment that breaks its literal reading.
#include "runtime/metrics/bounds/published.h"

#include <algorithm>
#include <numbers>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/metrics/bounds/norms.h"
#include "runtime/metrics/bounds/routed_mixture.h"
#include "tests/unit/runtime/metrics/bounds/close.h"

namespace moesaic {
namespace {

double published(double samples, double experts, double top_k, double lipschitz, double rademacher,
                 double natarajan, double delta, bool exact = false) {
    return published_bound({samples, experts, top_k, lipschitz, rademacher, natarajan, delta, 1, exact})
        .value;
}

TEST(PublishedBound, Oracles) {
    expect_close(published(1e4, 8, 2, 1, .01, 16, .05), 0.2912212836);
    expect_close(published(1e4, 8, 2, 1, .01, 16, .05, true), 0.2721501117);
    expect_close(published(1e6, 64, 8, 1, .001, 65536, .05), 2.895322282);
    expect_close(published(1e4, 1000, 1, .5, .007978646139, 0, .05), 0.04556143602);
    expect_close(published(1000, 1, 1, 1, .01, 1, .05), 0.207229956, 2e-9);
    expect_close(published(5e4, 16, 4, 2, .003, 40, .01), 0.245821791419);
    expect_close(published(5e4, 16, 4, 2, .003, 40, .01, true), 0.230594852361);
    expect_close(published(1e6, 1e5, 1, .5, std::sqrt(2 / (std::numbers::pi * 1e6)), 0, .05),
                 0.00455618349621);
}

TEST(PublishedBound, TermsAddUpAndSayWhenTheySayNothing) {
    const BoundResult result = published_bound({1e6, 64, 8, 1, .001, 65536, .05, 1, false});
    EXPECT_EQ(result.terms.sum(), result.value);
    EXPECT_EQ(result.terms.at("expert"), .004);
    EXPECT_TRUE(result.vacuous);
    EXPECT_FALSE(published_bound({1e6, 64, 8, 1, .001, 65536, .05, 10, false}).vacuous) << "a wider loss";
    EXPECT_EQ(result.assumptions.front().name, "certificate");
    EXPECT_EQ(result.assumptions.front().status, AssumptionStatus::violated);
}

TEST(PublishedBound, ShapeInEveryArgument) {
    for (double top_k = 1; top_k < 64; ++top_k) {
        const double here = published(1e6, 64, top_k, 1, .01, 100, .05);
        EXPECT_LT(here, published(1e6, 64, top_k + 1, 1, .01, 100, .05)) << "grows with k";
        EXPECT_LT(here, published(1e6, 65, top_k, 1, .01, 100, .05)) << "and with T";
        EXPECT_GT(here, published(1.1e6, 64, top_k, 1, .01, 100, .05)) << "and falls with samples";
        EXPECT_GT(here, published(1e6, 64, top_k, 1, .01, 100, .06));
        EXPECT_LE(published(1e6, 64, top_k, 1, .01, 100, .05, true), here) << "the relaxation costs";
    }
    EXPECT_LT(published(1e6, 64, 64, 1, .01, 100, .05, true), published(1e6, 64, 32, 1, .01, 100, .05, true))
        << "with all experts active there is one mask";
    EXPECT_TRUE(std::isfinite(published(1e15, 65536, 65536, 1, .01, 1e12, .05)));
    EXPECT_TRUE(std::isfinite(published(1, 1, 0, 1, .01, 0, .05)));
}

// ---------------------------------------------------------------- the hash router
/// Gap of the constant experts that fit pure-noise labels best: every example goes to a random one of them,
/// each is the sign of its labels' sum, so that the empirical loss falls below 1/2 by sum |S_j| / (2m).
double noise_gap(i64 samples, i64 experts, u64 draw) {
    const Philox random(draw, "labels");
    std::vector<i64> sums(static_cast<std::size_t>(experts));
    for (i64 i = 0; i < samples; ++i) {
        const u32 bits = random.bits(static_cast<u64>(i));
        sums[(bits >> 1) % static_cast<u32>(experts)] += bits % 2 == 0 ? 1 : -1;
    }
    double gap = 0;
    for (const i64 sum : sums) gap += static_cast<double>(std::abs(sum));
    return gap / (2 * static_cast<double>(samples));
}

/// The expectation of that gap: T/(2m) E|S_n| over the binomial number n of examples an expert gets.
double expected_noise_gap(double samples, double experts) {
    const double odds = 1 / (experts - 1);
    double probability = std::exp(samples * std::log1p(-1 / experts)), sum = 0;
    for (double n = 1; n <= samples; ++n) {
        probability *= (samples - n + 1) / n * odds;
        sum += probability * n * constant_rademacher(n);
        if (n > samples / experts && probability < 1e-18) break;
    }
    return experts * sum / (2 * samples);
}

double corrected_frozen(double samples, double experts) {
    RoutedMixture mixture;
    mixture.samples = samples;
    mixture.router.experts = experts;
    mixture.router.top_k = 1;
    mixture.gate = GateKind::frozen;
    mixture.lipschitz = .5;
    return routed_mixture_bound(mixture).value;
}

TEST(HashRouter, ExactGaps) {
    expect_close(constant_rademacher(1e4), 0.00797864613938);
    EXPECT_NEAR(constant_rademacher(1), 1, 1e-15);
    EXPECT_NEAR(constant_rademacher(2), 0.5, 1e-15);
    EXPECT_NEAR(constant_rademacher(3), 0.5, 1e-15);
    EXPECT_NEAR(constant_rademacher(1e15) * std::sqrt(1e15 * std::numbers::pi / 2), 1, 1e-14);
    expect_close(expected_noise_gap(10000, 1000), 0.124549651943);
    expect_close(expected_noise_gap(10000, 10000), 0.336841457928);
    expect_close(expected_noise_gap(100000, 10000), 0.12454817354);
}

TEST(HashRouter, ExceedsThePublishedExpressionAndNotOurs) {
    constexpr i64 kSamples = 10000;
    const double expert = constant_rademacher(kSamples);
    for (const i64 experts : {300, 1000}) {
        SCOPED_TRACE(experts);
        const double printed = published(kSamples, static_cast<double>(experts), 1, .5, expert, 0, .05);
        const double ours = corrected_frozen(kSamples, static_cast<double>(experts));
        int above_printed = 0;
        for (u64 draw = 0; draw < 100; ++draw) {
            const double gap = noise_gap(kSamples, experts, draw);
            above_printed += gap > printed ? 1 : 0;
            EXPECT_LT(gap, ours);
        }
        EXPECT_EQ(above_printed, 100) << "the expression is exceeded in every draw";
        EXPECT_GT(expected_noise_gap(kSamples, static_cast<double>(experts)), printed);
    }
    expect_close(corrected_frozen(1e4, 1000), 0.32846650017);
}

TEST(HashRouter, NoConstantSavesTheExpression) {
    const std::vector<double> ratios{2.7, 8.6, 27, 86, 273};
    double samples = 1e4;
    for (const double ratio : ratios) {
        const double printed = published(samples, samples / 10, 1, .5, constant_rademacher(samples), 0, .05);
        EXPECT_NEAR(expected_noise_gap(samples, samples / 10) / printed, ratio, .02 * ratio) << samples;
        samples *= 10;
    }
}

}  // namespace
}  // namespace moesaic
