// Choices and weights of routers on the logits that peers were compared on, and what else is known of them.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/router_bench.h"

namespace moesaic {
namespace {

// Logits of four tokens for four experts, and what Megatron-LM, DeepSpeed and torchtitan make of them.
const std::vector<double> kLogits{.11, .2, .1, .3, .3, .4, .11, .1, .11, .1, .6, .5, .1, .11, .7, .8};

void expect_near(const std::vector<double>& have, const std::vector<double>& want, double tolerance) {
    ASSERT_EQ(have.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(have[i], want[i], tolerance) << i;
}

std::vector<double> first_two(const std::vector<double>& values) {
    return {values[0], values[1]};
}

TEST(RouterConventions, SoftmaxBeforeTheChoice) {
    RouterBench bench({"top_k", 2, {"normalize=false"}}, 4);
    const auto outcome = bench.route(kLogits);
    EXPECT_EQ(outcome.expert, (std::vector<i32>{3, 1, 1, 0, 2, 3, 3, 2}));
    expect_near(first_two(outcome.weight), {.281648, .254846}, 5e-7);
}

TEST(RouterConventions, SoftmaxOverTheChoices) {
    for (const char* option : {"score=softmax_over_top_k", "normalize=true"}) {
        RouterBench bench({"top_k", 2, {option}}, 4);
        const auto outcome = bench.route(kLogits);
        expect_near(first_two(outcome.weight), {.524979, .475021}, 5e-7);
    }
}

TEST(RouterConventions, ScaleIsAFactorOfEveryWeight) {
    for (const char* normalize : {"normalize=true", "normalize=false"}) {
        for (const char* score : {"score=softmax", "score=sigmoid"}) {
            RouterBench plain({"top_k", 2, {normalize, score}}, 4);
            RouterBench scaled({"top_k", 2, {normalize, score, "scale=2.5"}}, 4);
            std::vector<double> want = plain.route(kLogits).weight;
            for (double& weight : want) weight *= 2.5;
            expect_near(scaled.route(kLogits).weight, want, 1e-15);
        }
    }
}

/// With one choice a softmax over the chosen is always 1, and the router's gradient exactly 0; before the
/// choice it is not (largest 0.226 on these logits, for a derivative of 1 by the weight of each token).
TEST(RouterConventions, OneNormalisedChoiceHasNoGradient) {
    RouterBench before({"top_k", 1, {"normalize=false"}}, 4);
    auto outcome = before.route(kLogits);
    double largest = 0;
    for (const double d : before.backward(outcome, std::vector<double>(4, 1.0)))
        largest = std::max(largest, std::abs(d));
    EXPECT_NEAR(largest, .226, 5e-4);
    for (const char* score : {"score=softmax", "score=sigmoid"}) {
        RouterBench after({"top_k", 1, {"normalize=true", score}}, 4);
        auto normalised = after.route(kLogits);
        EXPECT_EQ(normalised.weight, std::vector<double>(4, 1.0));
        EXPECT_EQ(after.backward(normalised, {1, 2, 3, 4}), std::vector<double>(16, 0.0));
    }
}

TEST(RouterConventions, SigmoidWithBias) {
    RouterBench bench({"sigmoid_bias", 2, {}}, 4);
    const std::vector<double> bias{.5, 0, 0, -.5};
    std::copy(bias.begin(), bias.end(), bench.store.buffers()[0].value.as<double>());
    const auto outcome = bench.route(kLogits);
    EXPECT_EQ(outcome.expert, (std::vector<i32>{0, 1, 0, 1, 0, 2, 0, 2}));
    expect_near(outcome.weight, {.489621, .510378, .489666, .510334, .449629, .550371, .439988, .560012},
                1.1e-6);
    for (std::size_t token = 0; token < 4; ++token) {  // p: scores that sum to 1, without the bias
        double sum = 0, scores = 0;
        for (std::size_t e = 0; e < 4; ++e) scores += 1 / (1 + std::exp(-kLogits[4 * token + e]));
        for (std::size_t e = 0; e < 4; ++e) {
            sum += outcome.probability[4 * token + e];
            EXPECT_NEAR(outcome.probability[4 * token + e] * scores,
                        1 / (1 + std::exp(-kLogits[4 * token + e])), 1e-14);
        }
        EXPECT_NEAR(sum, 1, 1e-14);
    }
}

/// Megatron-LM's rule on these scores gives 0 and 4, the sum of two 0 and 2.
TEST(RouterConventions, GroupsCompeteByTheirBestOrTheirTwoBest) {
    const std::vector<double> scores{.9, 0, .6, .59, .85, 0, .1, .11};
    RouterBench top1({"group_limited", 2, {"groups=4", "top_groups=2"}}, 8);
    EXPECT_EQ(top1.route(scores).expert, (std::vector<i32>{0, 4}));
    // Softmax of the scores would keep the order but not that of sums: sigmoids' logits give the scores.
    std::vector<double> logits;
    for (const double score : scores) logits.push_back(std::log((score + 1e-9) / (1 - score)));
    for (const char* kind : {"group_limited", "sigmoid_bias"}) {
        RouterBench top2({kind, 2, {"groups=4", "top_groups=2", "group_score=top2_sum", "score=sigmoid"}}, 8);
        EXPECT_EQ(top2.route(logits).expert, (std::vector<i32>{0, 2})) << kind;
    }
}

TEST(RouterConventions, GroupsLimitFourChoices) {
    std::vector<double> logits;
    for (const double score : {.9, .1, .8, .75, .2, .3, .05, .7})
        logits.push_back(std::log(score / (1 - score)));
    RouterBench limited(
        {"group_limited", 4, {"groups=4", "top_groups=2", "group_score=top2_sum", "score=sigmoid"}}, 8);
    std::vector<i32> chosen = limited.route(logits).expert;
    std::sort(chosen.begin(), chosen.end());
    EXPECT_EQ(chosen, (std::vector<i32>{0, 1, 2, 3}));
    RouterBench free({"top_k", 4, {"score=sigmoid"}}, 8);
    chosen = free.route(logits).expert;
    std::sort(chosen.begin(), chosen.end());
    EXPECT_EQ(chosen, (std::vector<i32>{0, 2, 3, 7}));
}

TEST(RouterConventions, SwitchWeighsByTheProbabilityOfItsChoice) {
    RouterBench bench({"switch", 1, {}}, 4);
    const auto outcome = bench.route(kLogits);
    EXPECT_EQ(outcome.expert, (std::vector<i32>{3, 1, 2, 3}));
    for (std::size_t token = 0; token < 4; ++token) {
        EXPECT_EQ(outcome.weight[token],
                  outcome.probability[4 * token + static_cast<std::size_t>(outcome.expert[token])]);
    }
}

/// Zhou et al. 2022: of a sequence of four tokens, with two experts a token on average, each of four experts
/// takes two.
TEST(RouterConventions, ExpertsChooseTokens) {
    RouterBench bench({"expert_choice", 2, {"allow_noncausal=true"}}, 4, 4);
    const auto outcome = bench.route(kLogits);
    ASSERT_EQ(outcome.expert.size(), 16U);
    EXPECT_EQ(outcome.routing.slots(), 8);
    for (std::size_t e = 0; e < 4; ++e) {
        std::vector<std::pair<double, std::size_t>> column;
        for (std::size_t t = 0; t < 4; ++t) column.emplace_back(-outcome.probability[4 * t + e], t);
        std::sort(column.begin(), column.end());
        for (std::size_t rank = 0; rank < 4; ++rank) {
            const std::size_t at = 4 * column[rank].second + e;
            EXPECT_EQ(outcome.expert[at], rank < 2 ? static_cast<i32>(e) : -1);
            EXPECT_EQ(outcome.weight[at], rank < 2 ? -column[rank].first : 0.0);
        }
    }
}

TEST(RouterConventions, NearestPrototypeIsTheExpert) {
    for (const char* prototypes : {"prototypes=learnt", "prototypes=fixed"}) {
        RouterBench bench({"nearest_prototype", 1, {prototypes}}, 4);
        const std::vector<double> centres = bench.rank.read<double>(bench.store.parameters()[0].value);
        std::vector<double> x = normal_values("points", 40);
        const auto outcome = bench.route(x);
        for (std::size_t t = 0; t < 10; ++t) {
            std::vector<double> distance(4, 0.0);
            for (std::size_t i = 0; i < 16; ++i)
                distance[i / 4] += std::pow(x[4 * t + i % 4] - centres[i], 2);
            const auto nearest = std::min_element(distance.begin(), distance.end()) - distance.begin();
            EXPECT_EQ(outcome.expert[t], nearest);
            if (bench.spec.router.learn_prototypes) {
                EXPECT_LT(outcome.weight[t], 1.0);
            } else {
                EXPECT_EQ(outcome.weight[t], 1.0);
            }
        }
        EXPECT_EQ(bench.store.parameters()[0].decays(), bench.spec.router.learn_prototypes);
    }
}

}  // namespace
}  // namespace moesaic
