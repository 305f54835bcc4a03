// Against numpy 2 and scipy 1.17, whose numbers stand here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "runtime/base/philox.h"
#include "runtime/metrics/statistics/convex_hull.h"
#include "runtime/metrics/statistics/fits.h"
#include "runtime/metrics/statistics/gap_law.h"
#include "runtime/metrics/statistics/summary.h"

namespace moesaic {
namespace {

TEST(Statistics, StudentsDistribution) {
    EXPECT_NEAR(incomplete_beta(.3, 2.5, .5), 0.018927124071945658, 1e-13);
    EXPECT_NEAR(incomplete_beta(.99, 50, .5), 0.3173043978741973, 1e-12);
    EXPECT_NEAR(incomplete_beta(.1, .5, .5), 0.20483276469913345, 1e-13);
    EXPECT_NEAR(student_cdf(1.3, 4), 0.868274201764388, 1e-13);
    EXPECT_NEAR(student_cdf(-2.7, 9.5), 0.011645697992298571, 1e-13);
    EXPECT_NEAR(student_cdf(12, 1), 0.9735353239404101, 1e-13);
    EXPECT_NEAR(student_quantile(.975, 4), 2.7764451051977934, 1e-11);
    EXPECT_NEAR(student_quantile(.01, 2.5), -5.353111173030874, 1e-11);
}

TEST(Statistics, PairedTest) {
    const std::vector<double> first{1.1, 2.3, 0.7, 1.9, 3.1}, second{0.8, 2.0, 0.9, 1.1, 2.2};
    const PairedTest test = paired_test(first, second, .05);
    EXPECT_NEAR(test.difference, 0.42, 1e-14);
    EXPECT_NEAR(test.p, 0.10180780099736171, 1e-12);
    EXPECT_NEAR(test.low, -0.1311086176370002, 1e-11);
    EXPECT_NEAR(test.high, 0.9711086176370001, 1e-11);
    EXPECT_NEAR(test.smallest_detectable, 0.7378847532193826, 1e-11);
    const PairedTest one = paired_test(std::vector<double>{2}, std::vector<double>{1}, .05);
    EXPECT_EQ(one.p, 1);
    EXPECT_TRUE(std::isinf(one.high)) << "one pair says nothing of scatter";
    EXPECT_EQ(paired_test(first, first, .05).p, 1);
}

TEST(Statistics, RanksAndQuantiles) {
    const std::vector<double> left{1, 2, 2, 4, 7, 3}, right{3, 1, 4, 4, 9, 2};
    EXPECT_NEAR(spearman(left, right), 0.5735294117647058, 1e-14);
    EXPECT_TRUE(std::isnan(spearman(left, std::vector<double>(6, 1.0))));
    // Exact tables of Spearman's distribution (e.g. Zar 1972): 1/24, 1/120, 5/120, 8/120.
    const std::vector<double> few{1, 2, 3, 4}, five{1, 2, 3, 4, 5};
    EXPECT_NEAR(spearman_chance(few, few), 1.0 / 24, 1e-14);
    EXPECT_NEAR(spearman_chance(five, five), 1.0 / 120, 1e-14);
    EXPECT_NEAR(spearman_chance(five, std::vector<double>{2, 1, 3, 4, 5}), 5.0 / 120, 1e-14);
    EXPECT_NEAR(spearman_chance(five, std::vector<double>{2, 1, 3, 5, 4}), 8.0 / 120, 1e-14);
    EXPECT_NEAR(spearman_chance(five, std::vector<double>{5, 4, 3, 2, 1}), 1, 1e-14);
    // Two of four equal: 12 distinct orders, one of them the best.
    EXPECT_NEAR(spearman_chance(few, std::vector<double>{1, 2, 2, 3}), 1.0 / 12, 1e-14);
    // Nine pairs are drawn: 136 of all 362880 orders are as high.
    const std::vector<double> nine{1, 2, 3, 4, 5, 6, 7, 8, 9};
    EXPECT_NEAR(spearman_chance(nine, std::vector<double>{2, 1, 4, 3, 6, 5, 8, 7, 9}), 136.0 / 362880,
                2.5e-4);
    EXPECT_NEAR(spearman_chance(nine, std::vector<double>{1, 3, 2, 9, 4, 5, 8, 7, 6}), 10685.0 / 362880,
                0.002);
    EXPECT_NEAR(quantile_of({3, 1, 4, 1, 5, 9, 2}, .1), 1, 1e-14);
    EXPECT_NEAR(quantile_of({3, 1, 4, 1, 5, 9, 2}, .9), 6.6, 1e-14);
    EXPECT_EQ(quantile_of({3}, .5), 3);
}

TEST(Statistics, LeastSquares) {
    std::vector<std::vector<double>> rows;
    for (int i = 0; i < 8; ++i) rows.push_back({1, double(i), double(i * i % 7)});
    const std::vector<double> y{2.0, 3.5, 3.1, 5.2, 5.9, 7.7, 7.1, 9.4}, weights{1, 2, 1, .5, 1, 3, 1, 1};
    const auto fit = least_squares(rows, y, weights);
    ASSERT_TRUE(fit);
    const double coefficients[] = {2.0279607245400704, 1.0102016943745342, 0.04653858424019064};
    const double errors[] = {0.5424688087775774, 0.11726485887088106, 0.16391858559313494};
    for (std::size_t i = 0; i < 3; ++i) {
        EXPECT_NEAR(fit->coefficients[i], coefficients[i], 1e-12);
        EXPECT_NEAR(fit->errors[i], errors[i], 1e-12);
    }
    EXPECT_NEAR(fit->residual, 0.8286152116493161, 1e-12);
    for (auto& row : rows) row[2] = 2 * row[1] + row[0];
    EXPECT_FALSE(least_squares(rows, y)) << "dependent columns have no coefficients";
    EXPECT_FALSE(least_squares({{1, 2}}, std::vector<double>{1})) << "fewer rows than columns";
}

TEST(Statistics, SlopesWithIntervals) {
    // y = 3 N^-0.5 T^0.25 with 5 % scatter.
    const Philox random(7, "scatter");
    std::vector<Cell> cells;
    u64 counter = 0;
    for (const double samples : {100., 200., 400., 800., 1600.}) {
        for (const double experts : {2., 4., 8., 16.}) {
            Cell cell{{samples, experts}, {}};
            for (int seed = 0; seed < 3; ++seed)
                cell.y.push_back(3 * std::pow(samples, -.5) * std::pow(experts, .25) *
                                 std::exp(.05 * random.normal(counter++)));
            cells.push_back(cell);
        }
    }
    const auto fit = log_log_slope(cells, .1, 500, 1);
    ASSERT_TRUE(fit);
    EXPECT_EQ(fit->cells, 20);
    EXPECT_NEAR(fit->slope[0], -.5, .02);
    EXPECT_NEAR(fit->slope[1], .25, .02);
    for (std::size_t axis = 0; axis < 2; ++axis) {
        EXPECT_LT(fit->low[axis], fit->slope[axis]);
        EXPECT_GT(fit->high[axis], fit->slope[axis]);
        // The classical error is 0.05 / sqrt(60 var(ln x)); the interval is 2 x 1.645 of it.
        const double spread = axis == 0 ? std::log(2.) * std::sqrt(2.) : std::log(2.) * std::sqrt(1.25);
        const double width = 2 * 1.645 * .05 / (std::sqrt(60.) * spread);
        EXPECT_GT(fit->high[axis] - fit->low[axis], .5 * width);
        EXPECT_LT(fit->high[axis] - fit->low[axis], 1.7 * width);
    }
    EXPECT_EQ(log_log_slope(cells, .1, 500, 1)->low, fit->low) << "drawn from a keyed generator";
    // Seeds that agree with each other while cells do not: more of them must not narrow the interval.
    std::vector<Cell> shared = cells;
    for (Cell& cell : shared) cell.y = {cell.y[0], cell.y[0], cell.y[0]};
    const auto wide = log_log_slope(shared, .1, 500, 1);
    const double few = 2 * 1.645 * .05 / (std::sqrt(20.) * std::log(2.) * std::sqrt(2.));
    EXPECT_GT(wide->high[0] - wide->low[0], .6 * few);
    cells[0].y[0] = -1;
    EXPECT_EQ(log_log_slope(cells, .1, 10, 1)->left_out, 1);
    EXPECT_FALSE(log_log_slope({cells[0], cells[1]}, .1, 10, 1)) << "too few cells";
}

/// The grid of the reference script: a saturating law with 10 % of a fixed scatter.
std::vector<GapCell> reference_grid() {
    std::vector<GapCell> cells;
    for (const double experts : {2., 4., 8., 16., 32.}) {
        for (const double top_k : {1., 2., 4., 8.}) {
            if (top_k > experts) continue;
            for (const double samples : {250., 500., 1000., 2000., 4000., 8000.}) {
                const double x = std::exp(.64 - 1.05 * std::log(samples / 1000) +
                                          1.28 * std::log(experts / 8) + .02 * std::log(top_k / 2));
                const double scatter = std::exp(.1 * std::sin(12.9898 * double(cells.size())));
                cells.push_back({samples, experts, top_k, .52 * x / (1 + x) * scatter, 0});
            }
        }
    }
    return cells;
}

const GapLaw& law_named(std::string_view name) {
    for (const GapLaw& law : gap_laws())
        if (law.name == name) return law;
    throw std::runtime_error("no such law");
}

TEST(ConvexHull, TellsInsideFromOutside) {
    const Philox random(5, "hull");
    u64 counter = 0;
    // Corners of a simplex and of an octahedron, and twenty points within each.
    std::vector<std::vector<double>> simplex{{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, octahedron;
    for (const double sign : {-1., 1.})
        for (std::size_t axis = 0; axis < 3; ++axis) {
            octahedron.push_back({0, 0, 0});
            octahedron.back()[axis] = sign;
        }
    for (int i = 0; i < 20; ++i) {
        std::vector<double> point;
        for (int axis = 0; axis < 3; ++axis) point.push_back(random.uniform(counter++) / 3);
        simplex.push_back(point);
        octahedron.push_back(point);
    }
    int inside = 0;
    for (int i = 0; i < 400; ++i) {
        std::vector<double> at;
        for (int axis = 0; axis < 3; ++axis) at.push_back(1.2 * random.uniform(counter++) - .1);
        const double sum = at[0] + at[1] + at[2];
        EXPECT_EQ(in_convex_hull(simplex, at), std::ranges::min(at) >= 0 && sum <= 1) << i;
        double length = 0;
        for (double& x : at) length += std::abs(x = 2 * x - 1);
        EXPECT_EQ(in_convex_hull(octahedron, at), length <= 1) << i;
        inside += length <= 1 ? 1 : 0;
    }
    EXPECT_GT(inside, 20);
    for (const auto& point : octahedron) EXPECT_TRUE(in_convex_hull(octahedron, point));
    const std::vector<std::vector<double>> line{{0, 3}, {1, 3}, {4, 3}};
    EXPECT_TRUE(in_convex_hull(line, {2.5, 3}));
    EXPECT_TRUE(in_convex_hull(line, {4, 3}));
    EXPECT_FALSE(in_convex_hull(line, {2.5, 3.001}));
    EXPECT_FALSE(in_convex_hull(line, {4.001, 3}));
    EXPECT_FALSE(in_convex_hull({}, {1}));
}

TEST(GapLaw, FitsAsScipyDoes) {
    const std::vector<GapCell> cells = reference_grid();
    ASSERT_EQ(cells.size(), 102u);
    const std::vector<double> found = fit_gap_law(law_named("saturating_NTk"), cells);
    const double expected[] = {-0.669223616835482, 0.6773269912675461, -1.059207835666793, 1.2901282752060328,
                               -0.02463861365396996};
    for (std::size_t i = 0; i < 5; ++i) EXPECT_NEAR(found[i], expected[i], 1e-6) << i;
    EXPECT_NEAR(fit_gap_law(law_named("published"), cells)[0], 1.214155694185919, 1e-6);
}

TEST(GapLaw, ScoresLeftOutCellsAsScipyDoes) {
    const std::vector<GapCell> cells = reference_grid();
    const LawScore free = leave_one_out(law_named("saturating_NTk"), cells);
    EXPECT_EQ(free.cells, 102);
    EXPECT_NEAR(free.rmse, 0.02783537812547298, 1e-6);
    EXPECT_NEAR(free.log_rmse, 0.08313812685554156, 1e-6);
    EXPECT_NEAR(free.spearman, 0.972530548314683, 1e-3);
    const LawScore published = leave_one_out(law_named("published"), cells);
    EXPECT_NEAR(published.log_rmse, 0.4936916974566424, 1e-5);
    const auto larger =
        extrapolate(law_named("saturating_NTk"), cells,
                    [](const GapCell& cell, std::span<const GapCell>) { return cell.experts < 32; });
    ASSERT_TRUE(larger);
    EXPECT_LT(larger->log_rmse, .2);
    EXPECT_FALSE(extrapolate(law_named("published"), cells,
                             [](const GapCell&, std::span<const GapCell>) { return true; }));
}

TEST(GapLaw, IntervalsCoverAndWarn) {
    const std::vector<GapCell> cells = reference_grid();
    const GapLaw& law = law_named("saturating_NTk");
    EXPECT_GE(interval_coverage(law, cells, .2), .8);
    const GapPrediction within = predict_gap(law, cells, {1500, 8, 2, 0, 0}, .2);
    EXPECT_TRUE(within.in_hull);
    EXPECT_LT(within.low, within.gap);
    EXPECT_GT(within.high, within.gap);
    EXPECT_LT(within.factor, 1.25);
    EXPECT_GT(within.factor, 1.02);
    EXPECT_FALSE(predict_gap(law, cells, {1500, 64, 2, 0, 0}, .2).in_hull);
    // Each within its axis' range, but no mixture of cells, none of which has more active experts than
    // experts.
    EXPECT_FALSE(predict_gap(law, cells, {1500, 2, 8, 0, 0}, .2).in_hull);
    EXPECT_FALSE(predict_gap(law, cells, {1500, 4, 4.01, 0, 0}, .2).in_hull);
    EXPECT_TRUE(predict_gap(law, cells, {1500, 4, 4, 0, 0}, .2).in_hull) << "on the border";
    EXPECT_TRUE(predict_gap(law, cells, {8000, 32, 8, 0, 0}, .2).in_hull) << "a corner";
    EXPECT_FALSE(predict_gap(law, cells, {8001, 32, 8, 0, 0}, .2).in_hull);
    const std::vector<GapCell> few(cells.begin(), cells.begin() + 3);
    EXPECT_TRUE(std::isinf(predict_gap(law, few, cells[0], .2).high))
        << "one group cannot say how far off it is";
}

}  // namespace
}  // namespace moesaic
