// Binomials, cells and routing patterns: values computed elsewhere, and brute-force counts below the bounds.
#include "runtime/metrics/bounds/counting.h"

#include <algorithm>
#include <numbers>
#include <set>

#include "runtime/base/philox.h"
#include "tests/unit/runtime/metrics/bounds/close.h"

namespace moesaic {
namespace {

RouterClass linear(double experts, double top_k, double inputs, bool bias = true) {
    RouterClass router;
    router.experts = experts;
    router.top_k = top_k;
    router.inputs = inputs;
    router.bias = bias;
    return router;
}

TEST(Counting, Binomials) {
    expect_close(ln_binomial(64, 8), 22.21079944);
    expect_close(ln_binomial_relaxed(64, 8), 24.63553233);
    expect_close(ln_binomial(8, 2), 3.33220451, 2e-9);
    expect_close(ln_binomial_relaxed(8, 2), 4.772588722);
    expect_close(ln_binomial(256, 8), 33.6463576836);
    expect_close(ln_binomial_relaxed(256, 8), 35.7258872224);
    EXPECT_EQ(ln_binomial(8, 8), 0);
    EXPECT_EQ(ln_binomial(8, 0), 0);
    EXPECT_EQ(ln_binomial(0, 0), 0);
    EXPECT_EQ(ln_binomial_relaxed(8, 8), 8);
    EXPECT_EQ(ln_binomial_relaxed(8, 0), 0);
    expect_close(ln_ordered_choices(5, 3), std::log(60.0), 1e-14);
    EXPECT_EQ(ln_ordered_choices(5, 0), 0);
}

TEST(Counting, BinomialsKeepTheirDigitsUpTo1e15) {
    for (double n = 1; n <= 60; ++n) {
        double choices = 1;  // exact up to 2^53
        for (double k = 0; k <= n; ++k) {
            if (k > 0) choices = choices * (n - k + 1) / k;
            if (choices > 9e15) continue;
            EXPECT_NEAR(ln_binomial(n, k), std::log(choices), 4e-14) << n << " " << k;
        }
    }
    for (const double n : {65536.0, 1e9, 1e15}) {
        expect_close(ln_binomial(n, 1), std::log(n), 1e-14);
        expect_close(ln_binomial(n, n - 2), std::log(n) + std::log(n - 1) - std::numbers::ln2, 1e-14);
    }
    // Computed with 60 digits (mpmath).
    expect_close(ln_binomial(1e15, 5e14), 693147180559927.81, 1e-15);
    expect_close(ln_binomial(1e15, 1e9), 14815510046.683536, 1e-15);
    expect_close(ln_binomial(65536, 32768), 45420.322652564754, 1e-15);
}

TEST(Counting, CellsOfTestsThatMayTie) {
    expect_close(ln_cells_exact(2, 1), 1.09861228867);  // m = 2, T = 2, d = 1, no bias: 3 patterns
    expect_close(ln_cells_cover_exact(4, 2), 2.07944154168);
    EXPECT_EQ(ln_cells(0, 5), 0);
    EXPECT_EQ(ln_cells(5, 0), 0);
    EXPECT_EQ(ln_cells(5, 5), 5 * std::numbers::ln2);
    for (double tests = 1; tests < 60; ++tests) {
        for (double dimension = 1; dimension < 30; ++dimension) {
            const double exact = ln_cells_exact(tests, dimension);
            EXPECT_GE(ln_cells(tests, dimension) * (1 + 1e-14), exact) << tests << " " << dimension;
            EXPECT_GE(ln_cells_cover(tests, dimension) * (1 + 1e-14), ln_cells_cover_exact(tests, dimension));
            EXPECT_LE(ln_cells_cover_exact(tests, dimension), exact * (1 + 1e-14));
            EXPECT_LE(exact, tests * std::numbers::ln2 * (1 + 1e-14));
        }
    }
}

TEST(Counting, MasksOfRouters) {
    expect_close(ln_natarajan(1e4, 128, ln_binomial(8, 2)), 2031.967922);
    expect_close(ln_natarajan(5e4, 40, ln_binomial(16, 4)), 1033.31847378);
    expect_close(ln_masks(1e4, linear(8, 2, 16)), 1042.8471453);
    expect_close(ln_masks(1e4, linear(8, 2, 16, false)), 988.293153216);
    expect_close(ln_masks(5e4, linear(16, 4, 32, false)), 5008.07228318);
    expect_close(ln_masks(10, linear(8, 2, 16)), 33.3220451, 2e-9);  // all of C(8, 2)^10
    // Cover's count, for routers whose ties a bias can break.
    expect_close(ln_cells_cover(1e4 * 28, 7 * 17), 1035.772236);
    expect_close(ln_cells_cover(1e6 * 2016, 63 * 65), 57755.17455);
    expect_close(ln_cells_cover(5e4 * 120, 15 * 33), 5140.63191279);
    expect_close(ln_cells_cover(1e6 * 2016, 63 * 1024), 7.322e5, 1e-4);

    RouterClass relu = linear(8, 2, 16);
    relu.hidden = {32};
    expect_close(ln_masks(1e4, relu), 11044.91143);
    relu = linear(16, 4, 32);
    relu.hidden = {64, 64};
    expect_close(ln_masks(5e4, relu), 142593.175647);
    relu = linear(4, 2, 4);
    relu.hidden = {8};
    expect_close(ln_masks(100, relu), 179.175946923);  // all of C(4, 2)^100
}

TEST(Counting, NothingToChooseCountsNothing) {
    EXPECT_EQ(ln_masks(1e4, linear(8, 8, 16)), 0);
    EXPECT_EQ(ln_masks(1e4, linear(8, 0, 16)), 0);
    EXPECT_EQ(ln_masks(1e4, linear(1, 1, 16)), 0);
    EXPECT_EQ(ln_gate_cells(1e4, linear(1, 1, 16), 100, 1), 0);
    EXPECT_EQ(ln_ordered_masks(1e4, linear(1, 1, 16)), 0);
    EXPECT_GT(ln_ordered_masks(1e4, linear(8, 8, 16)), 0) << "which of the chosen comes first still varies";
    EXPECT_GT(ln_gate_cells(1e4, linear(8, 8, 16), 100, 8), 0) << "weights still move";
    EXPECT_LE(ln_masks(1e4, linear(8, 2, 16)), ln_ordered_masks(1e4, linear(8, 2, 16)));
    EXPECT_LE(ln_masks(1e4, linear(8, 2, 16)), ln_gate_cells(1e4, linear(8, 2, 16), 1, 2));
}

TEST(Counting, FiniteForTheLargest) {
    for (const double samples : {1.0, 1e6, 1e15}) {
        for (const double experts : {2.0, 256.0, 65536.0}) {
            for (const double top_k : {1.0, experts / 2, experts - 1}) {
                const double nats = ln_masks(samples, linear(experts, top_k, 16384));
                EXPECT_TRUE(std::isfinite(nats) && nats >= 0) << samples << " " << experts << " " << top_k;
                EXPECT_LE(nats, samples * ln_binomial(experts, top_k));
            }
        }
    }
}

// ---------------------------------------------------------------- brute force
using Logits = std::vector<std::vector<double>>;  // [example][expert]

/// What a router did on all examples: the chosen in order; or, with levels > 0, the order of all and every
/// difference of two logits in steps of eta.
std::vector<int> pattern_of(const Logits& logits, int top_k, bool ordered, double eta, int levels) {
    std::vector<int> pattern;
    for (const std::vector<double>& row : logits) {
        std::vector<int> order(row.size());
        for (std::size_t i = 0; i < row.size(); ++i) order[i] = static_cast<int>(i);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
            return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
        });
        std::vector<int> chosen(order.begin(), order.begin() + top_k);
        if (!ordered) std::sort(chosen.begin(), chosen.end());
        pattern.insert(pattern.end(), chosen.begin(), chosen.end());
        if (levels == 0) continue;
        for (std::size_t a = 0; a < row.size(); ++a) {
            for (std::size_t b = 0; b < a; ++b) {
                for (int r = -levels; r <= levels; ++r) pattern.push_back(row[a] - row[b] >= r * eta ? 1 : 0);
            }
        }
    }
    return pattern;
}

/// Integer routers with weights in -reach..reach (ties included) and random ones, on fixed examples.
std::size_t count_patterns(int experts, int inputs, bool bias, int examples, int top_k, bool ordered,
                           int levels) {
    const Philox random(7, "examples");
    std::vector<std::vector<double>> x(static_cast<std::size_t>(examples));
    u64 index = 0;
    for (auto& row : x) {
        for (int f = 0; f < inputs; ++f) row.push_back(std::floor(random.uniform(index++) * 7) - 3);
    }
    x[0][0] = 1;
    if (examples > 1) x[1][0] = -1;
    const int width = inputs + (bias ? 1 : 0), weights = experts * width;
    const int reach = weights <= 6 ? 2 : 1;
    std::set<std::vector<int>> seen;
    const auto visit = [&](const std::vector<double>& weight) {
        Logits logits;
        for (const auto& row : x) {
            std::vector<double> of_example;
            for (int e = 0; e < experts; ++e) {
                const double* const w = weight.data() + e * width;
                double sum = bias ? w[inputs] : 0;
                for (int f = 0; f < inputs; ++f) sum += w[f] * row[static_cast<std::size_t>(f)];
                of_example.push_back(sum);
            }
            logits.push_back(std::move(of_example));
        }
        seen.insert(pattern_of(logits, top_k, ordered, 1.0, levels));
    };
    std::vector<double> weight(static_cast<std::size_t>(weights), -reach);
    for (bool more = true; more;) {
        visit(weight);
        more = false;
        for (double& digit : weight) {
            if (++digit <= reach) {
                more = true;
                break;
            }
            digit = -reach;
        }
    }
    const Philox routers(7, "routers");
    for (u64 draw = 0; draw < 2000; ++draw) {
        for (std::size_t w = 0; w < weight.size(); ++w)
            weight[w] = 3 * routers.normal(draw * static_cast<u64>(weights) + w);
        visit(weight);
    }
    return seen.size();
}

TEST(Counting, BruteForceStaysBelowTheCount) {
    int shapes = 0;
    for (const int experts : {2, 3}) {
        for (const int inputs : {1, 2}) {
            for (const bool bias : {false, true}) {
                for (const int examples : {2, 3, 4}) {
                    if (inputs == 2 && bias && experts == 3 && examples == 4)
                        continue;  // 3^9 routers are enough
                    ++shapes;
                    SCOPED_TRACE(testing::Message() << experts << " experts, " << inputs << " inputs, bias "
                                                    << bias << ", " << examples << " examples");
                    const RouterClass router = linear(experts, 1, inputs, bias);
                    const double tests = examples * experts * (experts - 1) / 2.0;
                    const double dimension = (experts - 1) * (inputs + (bias ? 1 : 0));
                    const auto masks =
                        static_cast<double>(count_patterns(experts, inputs, bias, examples, 1, false, 0));
                    EXPECT_LE(std::log(masks), ln_masks(examples, router) * (1 + 1e-14));
                    EXPECT_LE(std::log(masks), ln_cells_exact(tests, dimension) * (1 + 1e-14));
                    const auto ordered = static_cast<double>(
                        count_patterns(experts, inputs, bias, examples, experts, true, 0));
                    EXPECT_LE(std::log(ordered), ln_cells_exact(tests, dimension) * (1 + 1e-14));
                    const auto cells =
                        static_cast<double>(count_patterns(experts, inputs, bias, examples, 1, true, 1));
                    EXPECT_LE(std::log(cells), ln_cells_exact(3 * tests, dimension) * (1 + 1e-14));
                    EXPECT_LE(ln_cells_exact(3 * tests, dimension),
                              ln_cells(3 * tests, dimension) * (1 + 1e-14));
                }
            }
        }
    }
    EXPECT_GE(shapes, 12);
}

TEST(Counting, TiesByIndexAreCounted) {
    // x = 1 and -1, two experts without biases: (1,2), (2,1), and (1,1) at equal weights. Cover's count
    // has 2.
    EXPECT_EQ(count_patterns(2, 1, false, 2, 1, false, 0), 3u);
    EXPECT_LE(std::log(3.0), ln_masks(2, linear(2, 1, 1, false)));
    EXPECT_GT(std::log(3.0), ln_cells_cover_exact(2, 1));
}

}  // namespace
}  // namespace moesaic
