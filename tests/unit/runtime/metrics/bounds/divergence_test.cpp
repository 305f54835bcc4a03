// kl, its inverse, binomial tails and their quantile, against values computed with 50 digits.
#include "runtime/metrics/bounds/divergence.h"

#include "tests/unit/runtime/metrics/bounds/close.h"

namespace moesaic {
namespace {

TEST(BinaryKl, AgreesWithItsDefinitionAndKeepsDigitsNearItsZero) {
    for (const double q : {0.0, 0.1, 0.5, 0.9, 1.0}) {
        for (const double p : {0.01, 0.3, 0.5, 0.99}) {
            const double expected =
                (q > 0 ? q * std::log(q / p) : 0) + (q < 1 ? (1 - q) * std::log((1 - q) / (1 - p)) : 0);
            EXPECT_NEAR(binary_kl(q, p), expected, 1e-15);
        }
    }
    EXPECT_EQ(binary_kl(.3, .3), 0);
    EXPECT_EQ(binary_kl(.3, 1), HUGE_VAL);
    EXPECT_EQ(binary_kl(.3, 0), HUGE_VAL);
    expect_close(binary_kl(.5, .5 + 1e-9), 2e-18, 1e-6);
}

TEST(KlInverse, Oracles) {
    expect_close(kl_inverse(0, .01), 0.0099501662508319466, 1e-14);
    expect_close(kl_inverse(.02, .01), 0.046515921067767681, 1e-12);
    expect_close(kl_inverse(.3, .2), 0.61263272402373996, 1e-12);
    expect_close(kl_inverse(.5, 1e-9), 0.50002236067976382, 1e-12);
    expect_close(kl_inverse(1e-9, 1e-9), 3.1461932172444135e-9, 1e-12);
    expect_close(kl_inverse(.999, .01), 0.99999998328966453, 1e-12);
    expect_close(kl_inverse(.1, 0.01009445342), 0.1479244285);
    EXPECT_EQ(kl_inverse(.3, 0), .3);
    EXPECT_EQ(kl_inverse(1, .5), 1);
    EXPECT_EQ(kl_inverse(.3, HUGE_VAL), 1);
}

TEST(KlInverse, InvertsAndIsMonotone) {
    for (double q = 0.001; q < 1; q += 0.037) {
        double last = q;
        for (double nats = 1e-8; nats < 3; nats *= 4) {
            const double p = kl_inverse(q, nats);
            EXPECT_GT(p, last);
            if (p < 1 - 1e-9) expect_close(binary_kl(q, p), nats, 1e-6);
            EXPECT_LE(p, q + std::sqrt(nats / 2)) << "Pinsker: never above the closed form";
            last = p;
        }
    }
}

TEST(BinomialTail, AgreesWithSumsAndLibraries) {
    expect_close(binomial_cdf(3, 10, .3), 0.6496107184, 1e-13);
    expect_close(binomial_cdf(30, 100, .25), 0.89621276104391327, 1e-13);
    expect_close(binomial_cdf(30, 100, .35), 0.17301948786509573, 1e-13);
    expect_close(binomial_cdf(1e6, 1e9, .001), 0.5002659615195433, 1e-9);
    expect_close(binomial_cdf(1e6, 1e9, .001002), 0.022804001142307833, 1e-9);
    expect_close(binomial_cdf(1e6, 1e9, .0009985), 0.9334731003369847, 1e-9);
    EXPECT_EQ(binomial_cdf(-1, 10, .3), 0);
    EXPECT_EQ(binomial_cdf(10, 10, .3), 1);
    EXPECT_EQ(binomial_cdf(3, 10, 0), 1);
    EXPECT_EQ(binomial_cdf(3, 10, 1), 0);
    // Summed term by term.
    for (const double p : {.02, .4, .77}) {
        double term = std::pow(1 - p, 40), sum = 0;
        for (double x = 0; x < 40; ++x) {
            sum += term;
            expect_close(binomial_cdf(x, 40, p), sum, 1e-11);
            term *= (40 - x) / (x + 1) * p / (1 - p);
        }
    }
}

TEST(ClopperPearson, Oracles) {
    expect_close(clopper_pearson_upper(7, 287, .05), 0.045322368892309327, 1e-12);
    expect_close(clopper_pearson_upper(0, 1000, .05), 0.0029912495450953, 1e-12);
    expect_close(clopper_pearson_upper(1, 10, .01), 0.50435266293080134, 1e-12);
    expect_close(clopper_pearson_upper(9, 10, .05), 0.9948838031081763, 1e-12);
    expect_close(clopper_pearson_upper(500, 1000, .05), 0.5264822687643088, 1e-12);
    expect_close(clopper_pearson_upper(12345, 1e6, .001), 0.012690005352071558, 1e-11);
    expect_close(clopper_pearson_upper(3, 1e9, .05), 7.7536565095036169e-9, 1e-12);
    expect_close(clopper_pearson_upper(5e8, 1e9, .05), 0.5000260079193697, 1e-12);
    EXPECT_EQ(clopper_pearson_upper(10, 10, .05), 1);
    EXPECT_EQ(clopper_pearson_upper(1, 1, .05), 1);
    EXPECT_LT(clopper_pearson_upper(1e6, 1e12, .05), 1.01e-6);
}

TEST(ClopperPearson, IsNeverAboveTheKlLimit) {
    for (double errors = 0; errors <= 50; errors += 5) {
        EXPECT_LE(clopper_pearson_upper(errors, 50, .05),
                  kl_inverse(errors / 50, std::log(20.0) / 50) + 1e-12);
    }
}

}  // namespace
}  // namespace moesaic
