// Bounds from losses: held-out data, compression, PAC-Bayes; oracles, order among them, coverage on known
// chances.
#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/metrics/bounds/compression.h"
#include "runtime/metrics/bounds/divergence.h"
#include "runtime/metrics/bounds/pac_bayes.h"
#include "runtime/metrics/bounds/test_set.h"
#include "tests/unit/runtime/metrics/bounds/close.h"

namespace moesaic {
namespace {

TEST(HeldoutBounds, Oracles) {
    expect_close(hoeffding_half_width(1e4, 1, .05), 0.01358101516);
    expect_close(hoeffding_half_width(1e4, 1, delta_of_look(.05, 1000)), 0.0295849535, 2e-9);
    expect_close(clopper_pearson_bound(7, 287, .05).value, 0.0453223688923);
    std::vector<double> losses;
    for (int i = 0; i < 200; ++i) losses.push_back((7 * i * i + 3 * i) % 11 / 20.0 + .1);
    expect_close(plug_in_bernstein_upper(losses, .05), 0.342747340004);
}

TEST(HeldoutBounds, OrderRangeAndSize) {
    for (const double mean : {0.0, .03, .4, .9}) {
        const HeldoutLosses losses{500, mean, mean * (1 - mean), 1, .05};
        const double kl = heldout_kl_bound(losses).value;
        EXPECT_LE(kl, hoeffding_bound(losses).value);
        EXPECT_LE(clopper_pearson_bound(500 * mean, 500, .05).value, kl + 1e-12);
        HeldoutLosses more = losses;
        more.samples = 1000;
        EXPECT_LT(heldout_kl_bound(more).value, kl);
        EXPECT_LT(hoeffding_bound(more).value, hoeffding_bound(losses).value);
        EXPECT_LT(empirical_bernstein_bound(more).value, empirical_bernstein_bound(losses).value);
    }
    const BoundResult narrow = hoeffding_bound({500, .4, 0, 1, .05}),
                      wide = hoeffding_bound({500, 8, 0, 20, .05});
    expect_close(wide.value, 20 * narrow.value, 1e-14);
    expect_close(heldout_kl_bound({500, 8, 0, 20, .05}).value,
                 20 * heldout_kl_bound({500, .4, 0, 1, .05}).value, 1e-14);
    EXPECT_TRUE(hoeffding_bound({1, .4, 0, 1, .05}).vacuous);
    EXPECT_TRUE(clopper_pearson_bound(1, 1, .05).vacuous);
    const BoundResult bernstein = empirical_bernstein_bound({500, .4, .01, 1, .05});
    EXPECT_EQ(bernstein.terms.sum(), bernstein.value);
    expect_close(bernstein.value, .4 + std::sqrt(.02 * std::log(40.0) / 500) + 7 * std::log(40.0) / (3 * 499),
                 1e-14);
}

/// Shares of 2000 repetitions in which a limit lies below the true chance.
TEST(HeldoutBounds, CoverKnownChances) {
    constexpr int kRuns = 2000, kSamples = 100;
    constexpr double kDelta = .1;
    for (const double chance : {.02, .1, .5}) {
        SCOPED_TRACE(chance);
        int binomial = 0, kl = 0, hoeffding = 0, bernstein = 0, plug_in = 0;
        for (u64 run = 0; run < kRuns; ++run) {
            const Philox random(run, "coverage");
            double errors = 0;
            std::vector<double> losses;
            for (u64 i = 0; i < kSamples; ++i) {
                losses.push_back(random.uniform(i) < chance ? 1 : 0);
                errors += losses.back();
            }
            const double mean = errors / kSamples;
            const HeldoutLosses seen{kSamples, mean, mean * (1 - mean) * kSamples / (kSamples - 1), 1,
                                     kDelta};
            binomial += clopper_pearson_bound(errors, kSamples, kDelta).value < chance ? 1 : 0;
            kl += heldout_kl_bound(seen).value < chance ? 1 : 0;
            hoeffding += hoeffding_bound(seen).value < chance ? 1 : 0;
            bernstein += empirical_bernstein_bound(seen).value < chance ? 1 : 0;
            plug_in += plug_in_bernstein_upper(losses, kDelta) < chance ? 1 : 0;
        }
        // Three standard errors above delta; the exact limit must also come near it where errors are many.
        const int most = static_cast<int>(kRuns * kDelta + 3 * std::sqrt(kRuns * kDelta * (1 - kDelta)));
        for (const int violations : {binomial, kl, hoeffding, bernstein, plug_in})
            EXPECT_LE(violations, most);
        if (chance >= .1) {
            EXPECT_GT(binomial, kRuns * kDelta / 3) << "the exact limit is not wide";
        }
        EXPECT_LE(kl, binomial);
        EXPECT_LE(hoeffding, kl);
    }
}

TEST(HeldoutBounds, BettingCoversAndIsNarrowForAverages) {
    // Averages in a narrow band, and 0-1 losses; one as close to 1 as can be.
    struct Case {
        double mean, half_width, widest;
        bool binary;
    };
    for (const Case& one :
         {Case{.16, .05, .03, false}, {.5, .4, .08, false}, {.2, 0, .07, true}, {.97, 0, .03, true}}) {
        int violations = 0;
        double width = 0, bernstein = 0;
        for (u64 seed = 0; seed < 1000; ++seed) {
            const Philox random(seed, "betting");
            std::vector<double> losses;
            for (u64 i = 0; i < 300; ++i) {
                const double u = random.uniform(i);
                losses.push_back(one.binary ? (u < one.mean ? 1 : 0)
                                            : one.mean + one.half_width * (2 * u - 1));
            }
            const double upper = betting_upper(losses, .05);
            violations += upper < one.mean ? 1 : 0;
            width += (upper - one.mean) / 1000;
            bernstein += (plug_in_bernstein_upper(losses, .05) - one.mean) / 1000;
        }
        EXPECT_LE(violations, 50) << one.mean;
        EXPECT_LT(width, one.widest) << one.mean;
        EXPECT_LT(width, bernstein) << one.mean;
    }
    EXPECT_EQ(betting_upper(std::vector{1.0}, .05), 1);
    EXPECT_EQ(betting_upper(std::vector<double>{0.5, NAN}, .05), 1);
    EXPECT_EQ(betting_upper(std::vector<double>(50, 1.0), .05), 1);
    EXPECT_NEAR(betting_upper(std::vector<double>(1000, 0.0), .05), 3.2e-3, 1e-4);
}

/// betting_upper by its definition: loss by loss, and bisection.
double betting_upper_by_definition(const std::vector<double>& losses, double delta) {
    const double nats = -std::log(delta), planned = static_cast<double>(losses.size());
    double low = 0, high = 1;
    for (int i = 0; i < 60; ++i) {
        const double limit = 0.5 * (low + high);
        double capital = 0, sum = 0.5, squares = 0.25, seen = 1;
        for (const double loss : losses) {
            const double stake = std::sqrt(2 * nats * seen / (planned * squares));
            capital += std::log1p(std::min(stake, 0.95 / (1 - limit)) * (limit - loss));
            sum += loss;
            const double mean = sum / ++seen;
            squares += (loss - mean) * (loss - mean);
        }
        (capital >= nats ? high : low) = limit;
    }
    return high;
}

TEST(HeldoutBounds, BettingIsItsDefinition) {
    const Philox random(3, "betting");
    u64 next = 0;
    for (const std::size_t count :
         std::vector<std::size_t>{1, 2, 3, 7, 8, 9, 63, 64, 65, 72, 137, 1000, 3000}) {
        for (const double chance : {0.0, 0.02, 0.5, 0.98, 1.0, -1.0}) {  // -1: averages
            for (const double delta : {0.05, 1e-6}) {
                std::vector<double> losses(count);
                for (double& loss : losses) {
                    const double u = random.uniform(next++);
                    loss = chance < 0 ? u : u < chance ? 1.0 : 0.0;
                }
                EXPECT_NEAR(betting_upper(losses, delta), betting_upper_by_definition(losses, delta), 2e-12)
                    << count << " losses, chance " << chance << ", delta " << delta;
            }
        }
    }
}

TEST(GapInterval, HoldsTheTrueGapAndIsNarrowForSmallVariance) {
    int outside = 0;
    for (u64 run = 0; run < 200; ++run) {
        const Philox random(run, "gap");
        std::vector<double> heldout, train;
        for (u64 i = 0; i < 400; ++i) {
            heldout.push_back(4 + .6 * (2 * random.uniform(2 * i) - 1));  // bits, range 18.8
            train.push_back(3.9 + .6 * (2 * random.uniform(2 * i + 1) - 1));
        }
        const GapInterval interval = bounded_gap_interval(heldout, train, 18.8, .05, run);
        outside += interval.low > .1 || interval.high < .1 ? 1 : 0;
        EXPECT_LT(interval.low, interval.gap);
        EXPECT_GT(interval.high, interval.gap);
        EXPECT_LT(interval.high - interval.low, 2) << "Hoeffding's would be 5.4";
    }
    EXPECT_LE(outside, 10);
}

/// As a shard lies that is made of an easy file and a hard one.
std::vector<double> file_by_file(double first, double second) {
    std::vector<double> losses;
    for (u64 i = 0; i < 1000; ++i)
        losses.push_back((i < 500 ? first : second) + .02 * Philox(1, "files").uniform(i));
    return losses;
}

TEST(GapInterval, HoldsTheGapOfShardsThatLieFileByFile) {
    const std::vector<double> easy_first = file_by_file(.1, .9), hard_first = file_by_file(.9, .1);
    for (const auto* heldout : {&easy_first, &hard_first}) {
        for (const auto* train : {&easy_first, &hard_first}) {
            for (const GapInterval& interval : {bounded_gap_interval(*heldout, *train, 1, .05, 1),
                                                ordered_gap_interval(*heldout, *train, 1, .05)}) {
                EXPECT_NEAR(interval.gap, 0, 1e-3);
                EXPECT_LT(interval.low, interval.gap);
                EXPECT_GT(interval.high, interval.gap);
                EXPECT_LT(interval.high - interval.low, .35);
            }
        }
    }
}

/// Documents of which every other one repeats the loss of the one before it.
TEST(GapInterval, HoldsForLossesThatDependOnThoseBefore) {
    int outside = 0;
    double width = 0;
    for (u64 run = 0; run < 400; ++run) {
        const Philox random(run, "dependent gap");
        std::vector<double> heldout, train;
        double heldout_mean = 0, train_mean = 0;  // of the losses given those before
        for (u64 i = 0; i < 400; ++i) {
            const auto draw = [&](std::vector<double>& losses, double& mean, double chance, u64 which) {
                const double expected = i % 2 == 0 ? chance : losses.back() > 0 ? .9 : .1;
                mean += expected / 400;
                losses.push_back(random.uniform(2 * i + which) < expected ? 1 : 0);
            };
            draw(heldout, heldout_mean, .4, 0);
            draw(train, train_mean, .3, 1);
        }
        const GapInterval interval = ordered_gap_interval(heldout, train, 1, .05);
        const double gap = heldout_mean - train_mean;
        outside += interval.low > gap || interval.high < gap ? 1 : 0;
        width += (interval.high - interval.low) / 400;
    }
    EXPECT_LE(outside, 20);
    EXPECT_LT(width, .35) << "and it says something";
}

TEST(Compression, Oracles) {
    expect_close(occam_bound({1e7, .3, 1e5, 1, .05}).value, 0.3588717733);
    expect_close(occam_bound({1e6, .1, 3e4, 1, .05}).value, 0.201974043631);
    expect_close(occam_kl_bound({1e6, .1, 3e4, 1, .05}).value, 0.171973080381);
    expect_close(smoothed_range(.1, 50257), 18.78696513);
    expect_close(smoothed_bits(.25, .1, 50257), 2.151990335);
    expect_close(lotfi_bound({8009762, 5, 1e5, smoothed_range(.1, 50257), .05}, 10000).value, 6.465852518);
    expect_close(lotfi_bound({8009762, .7, 1e5, 1, .05}, 10000).value, 0.7780249768);
    expect_close(lotfi_bound({1e6, 3.2, 5e4, smoothed_range(.05, 32000), .05}, 2000).value, 6.25558968262);
    expect_close(prefix_free_bits(1e5), 100033.2193);
    EXPECT_EQ(prefix_free_bits(0), 0);
    EXPECT_EQ(prefix_free_bits(1), 1);
}

TEST(Compression, MoreBitsCostAndMoreSamplesPay) {
    for (double bits = 1; bits < 1e9; bits *= 7) {
        const double here = occam_bound({1e6, .1, bits, 1, .05}).value;
        EXPECT_LT(here, occam_bound({1e6, .1, 2 * bits, 1, .05}).value);
        EXPECT_GT(here, occam_bound({2e6, .1, bits, 1, .05}).value);
        EXPECT_LE(occam_kl_bound({1e6, .1, bits, 1, .05}).value, here);
    }
    EXPECT_TRUE(occam_bound({1e6, .1, 1e8, 1, .05}).vacuous);
    const BoundResult lotfi = lotfi_bound({1e6, .1, 1e4, 1, .05}, 2000);
    EXPECT_EQ(lotfi.terms.sum(), lotfi.value);
    // Smoothed bits lie in their range: the likeliest and the least likely prediction.
    EXPECT_GE(smoothed_bits(1, .1, 50257), 0);
    expect_close(smoothed_bits(0, .1, 50257) - smoothed_bits(1, .1, 50257), smoothed_range(.1, 50257), 1e-12);
}

TEST(PacBayesBounds, Oracles) {
    expect_close(kl_inverse(.1, 0.01009445342), 0.1479244285);
    expect_close(maurer_bound({1e5, .1, 1000, .05}).value, 0.1479244285);
    expect_close(mcallester_bound({1e5, .1, 1000, .05}).value, 0.1710438365);
    expect_close(catoni_bound({719, .03, 2, .05}, .6).value, 0.0546103039572);
    expect_close(catoni_bound({2000, .45, 0, .05}, .1).value, 0.477429275036);
    expect_close(private_gate_pinsker_bound({1e5, .05, 64, .1, 3.5, 0, .05}).value, 0.06892549551);
    expect_close(private_gate_bound({719, .04, 8, .05, 2.0794, 0, .05}).value, 0.0799565223855);
    EXPECT_NEAR(softmax_gate_epsilon(1, 8), 3.2986, 5e-5);
    EXPECT_LT(softmax_gate_epsilon(1, 1e9), 4);
    EXPECT_NEAR(softmax_gate_epsilon(1, 1), 0, 1e-15) << "one expert tells nothing";
    EXPECT_EQ(gaussian_divergence(8, 2), 1);
}

TEST(PacBayesBounds, OrderAndShape) {
    for (const double divergence : {0.0, 5.0, 100.0}) {
        const PacBayes input{1000, .1, divergence, .05};
        EXPECT_LE(maurer_bound(input).value, mcallester_bound(input).value);
        const PacBayes more{2000, .1, divergence, .05}, further{1000, .1, divergence + 1, .05};
        EXPECT_LT(maurer_bound(more).value, maurer_bound(input).value);
        EXPECT_GT(maurer_bound(further).value, maurer_bound(input).value);
        EXPECT_GT(catoni_bound(further, .5).value, catoni_bound(input, .5).value);
        EXPECT_LT(catoni_bound(more, .5).value, catoni_bound(input, .5).value);
    }
    EXPECT_TRUE(maurer_bound({10, .1, 1000, .05}).vacuous);
    EXPECT_TRUE(private_gate_bound({1000, .4, 8, 2, 0, 0, .05}).vacuous);
}

}  // namespace
}  // namespace moesaic
