// What routers promise besides their choices: noise, evenness, ids, replay, and the bias that balances.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "layers/routers/uniform_router.h"
#include "tests/support/router_bench.h"

namespace moesaic {
namespace {

std::vector<i64> loads(const std::vector<i32>& expert, i64 experts) {
    std::vector<i64> counts(static_cast<std::size_t>(experts), 0);
    for (const i32 one : expert) {
        if (one >= 0) ++counts[static_cast<std::size_t>(one)];
    }
    return counts;
}

class DrawingRouters : public testing::TestWithParam<RouterVariant> {};

/// The same token of the same step draws the same, wherever it stands; another step or token another.
TEST_P(DrawingRouters, DrawByStepAndTokenOfTheGlobalBatch) {
    RouterBench bench(GetParam(), 4);
    const std::vector<double> x = normal_values("x", 40);
    bench.rank.context.step = 3;
    const auto whole = bench.route(x, 100);
    const auto later = bench.route({x.begin() + 16, x.end()}, 104);
    EXPECT_TRUE(
        std::equal(later.probability.begin(), later.probability.end(), whole.probability.begin() + 16));
    EXPECT_EQ(bench.route(x, 100).probability, whole.probability);
    EXPECT_NE(bench.route(x, 101).probability, whole.probability);
    bench.rank.context.step = 4;
    EXPECT_NE(bench.route(x, 100).probability, whole.probability);
    bench.rank.context.phase = Phase::count_only;
    bench.rank.context.step = 3;
    EXPECT_EQ(bench.route(x, 100).probability, whole.probability);
}

TEST_P(DrawingRouters, DrawNothingInEvaluation) {
    RouterBench bench(GetParam(), 4);
    RouterBench plain({"top_k", bench.spec.top_k, {"normalize=false"}}, 4);
    const std::vector<double> x = normal_values("x", 40);
    bench.rank.context.phase = Phase::evaluate;
    const auto outcome = bench.route(x);
    EXPECT_EQ(outcome.probability, plain.route(x).probability);
    bench.rank.context.phase = Phase::train;
    EXPECT_NE(bench.route(x).probability, outcome.probability);
}

INSTANTIATE_TEST_SUITE_P(Kinds, DrawingRouters,
                         testing::Values(RouterVariant{"noisy_top_k", 2, {}},
                                         RouterVariant{"switch", 1, {"jitter=0.3"}}),
                         [](const auto& test) { return test.param.kind; });

TEST(SinkhornRouter, SharesTheExpertsMoreEvenlyWhileTrainingOnly) {
    RouterBench bench({"sinkhorn", 1, {"score=sigmoid"}}, 4, 64);
    std::vector<double> x = normal_values("x", 256);
    for (std::size_t i = 0; i < x.size(); i += 4) x[i] += 2;  // everybody likes expert 0
    const std::vector<i64> trained = loads(bench.route(x).expert, 4);
    bench.rank.context.phase = Phase::evaluate;
    const std::vector<i64> evaluated = loads(bench.route(x).expert, 4);
    EXPECT_GT(*std::max_element(evaluated.begin(), evaluated.end()), 40);
    EXPECT_LT(*std::max_element(trained.begin(), trained.end()), 24);
}

TEST(SinkhornRouter, BalancesEachSequenceByItself) {
    RouterBench bench({"sinkhorn", 1, {"score=sigmoid"}}, 4, 16);
    const std::vector<double> x = normal_values("x", 128);
    const std::vector<i32> both = bench.route(x).expert;
    const std::vector<i32> second = bench.route({x.begin() + 64, x.end()}, 16).expert;
    EXPECT_TRUE(std::equal(second.begin(), second.end(), both.begin() + 16));
}

TEST(HashRouter, GoesByTheIdAndNotByPlaceOrContent) {
    RouterBench bench({"hash", 2, {}}, 4);
    const std::vector<i32> ids{5, 7, 5, 96, 7};
    const auto outcome = bench.route(normal_values("x", 20), 0, ids);
    const auto moved = bench.route(normal_values("y", 20), 33, {7, 96, 96, 5, 5});
    const auto row = [](const auto& one, std::size_t t) {
        return std::pair(one.expert[2 * t], one.expert[2 * t + 1]);
    };
    EXPECT_EQ(row(outcome, 0), row(outcome, 2));
    EXPECT_EQ(row(outcome, 1), row(outcome, 4));
    EXPECT_EQ(row(outcome, 0), row(moved, 3));
    EXPECT_EQ(row(outcome, 3), row(moved, 1));
    EXPECT_EQ(outcome.weight, std::vector<double>(10, 0.5));
}

TEST(HashRouter, DealsTheVocabularyOutEvenly) {
    std::vector<i32> ids(97);
    std::iota(ids.begin(), ids.end(), 0);
    RouterBench bench({"hash", 3, {}}, 7), other({"hash", 3, {"hash_seed=1"}}, 7);
    const std::vector<double> x(97 * 7, 0.0);
    const std::vector<i32> expert = bench.route(x, 0, ids).expert;
    for (const i64 load : loads(expert, 7)) {
        EXPECT_GE(load, 3 * 13);  // 97 = 7 * 13 + 6
        EXPECT_LE(load, 3 * 14);
    }
    for (std::size_t t = 0; t < 97; ++t) {
        EXPECT_NE(expert[3 * t], expert[3 * t + 1]);
        EXPECT_NE(expert[3 * t], expert[3 * t + 2]);
        EXPECT_NE(expert[3 * t + 1], expert[3 * t + 2]);
    }
    EXPECT_NE(other.route(x, 0, ids).expert, expert);
}

TEST(UniformRouter, GivesEveryExpertTheSameInEveryBlock) {
    RouterBench bench({"uniform", 2, {}}, 5);
    for (const i64 first : {0, 5, 40}) {  // blocks of lcm(5, 2) / 2 tokens
        const std::vector<i32> expert = bench.route(std::vector<double>(25, 0.0), first).expert;
        for (i32 e = 0; e < 5; ++e)
            EXPECT_EQ(std::count(expert.begin(), expert.end(), e), 2) << "expert " << e;
    }
}

TEST(UniformRouter, FollowsATrafficPatternByStepLayerAndToken) {
    RouterBench bench({"uniform", 2, {"traffic=zipf:1.5"}}, 5);
    const auto traffic = make_traffic("zipf:1.5", traffic_shape(bench.spec));
    const std::vector<double> x(30, 0.0);
    for (const i64 step : {1, 2}) {
        bench.rank.context.step = step;
        std::vector<i32> want(12);
        traffic->route(step, 0, 37, 6, want);
        EXPECT_EQ(bench.route(x, 37).expert, want);
    }
}

TEST(ReplayRouter, FollowsTheTraceByStepAndToken) {
    const SmallTrace file(1, 2, 5);
    RouterBench bench({"replay", 2, {"trace=" + file.path()}}, 5);
    const RoutingTrace trace(file.path(), 1, 2, 5);
    const std::vector<double> x(30, 0.0);
    for (const i64 step : {1, 2, 3}) {  // of two steps
        bench.rank.context.step = step;
        std::vector<i32> want(12);
        trace.read(step, 0, 37, want);
        EXPECT_EQ(bench.route(x, 37).expert, want);  // tokens 37, 38, 39, 0, 1, 2
        EXPECT_EQ(bench.route(x, 37 + 40).expert, want);
    }
    bench.rank.context.step = 0;
    std::vector<i32> first(12);
    trace.read(1, 0, 0, first);
    EXPECT_EQ(bench.route(x).expert, first);
}

TEST(SigmoidBiasRouter, MovesTheBiasTowardsTheMeanLoad) {
    for (const bool recentre : {false, true}) {
        RouterBench bench({"sigmoid_bias", 2, {"bias_rate=0.25", fmt::format("bias_recentre={}", recentre)}},
                          4);
        const std::vector<i64> counts{8, 2, 6, 0};  // mean 4
        bench.router->update(bench.rank.context, counts);
        std::vector<double> want{-.25, .25, -.25, .25};
        EXPECT_EQ(bench.buffer(0), want);
        const std::vector<i64> next{4, 4, 5, 3};  // two of them at the mean exactly
        bench.router->update(bench.rank.context, next);
        want = {-.25, .25, -.5, .5};
        EXPECT_EQ(bench.buffer(0), want);
        bench.router->update(bench.rank.context, std::vector<i64>{9, 1, 1, 1});
        want = {-.5, .5, -.25, .75};
        const double mean = recentre ? .125 : 0;
        for (double& bias : want) bias -= mean;
        EXPECT_EQ(bench.buffer(0), want);
    }
}

}  // namespace
}  // namespace moesaic
