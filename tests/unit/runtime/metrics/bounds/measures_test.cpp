// Theorem 2, norms, prototype mixtures, rates and fitted laws: oracles and shapes.
#include <algorithm>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/metrics/bounds/frozen_features.h"
#include "runtime/metrics/bounds/norms.h"
#include "runtime/metrics/bounds/prototype_mixture.h"
#include "runtime/metrics/bounds/scaling_laws.h"
#include "runtime/metrics/bounds/transformer_rate.h"
#include "tests/unit/runtime/metrics/bounds/close.h"

namespace moesaic {
namespace {

/// A hash-routed last layer on random features, noise labels: the largest gap over the ball is known exactly.
TEST(FrozenFeatures, IsTwiceTheExpectedGapAndNeverBelowIt) {
    constexpr int kSamples = 500, kWidth = 8, kExperts = 16;
    constexpr double kNorm = 3;
    const Philox random(2, "features");
    std::vector<double> features, weights;
    std::vector<int> experts;
    for (int i = 0; i < kSamples; ++i) {
        const u64 at = static_cast<u64>(i) * 32;
        for (u64 f = 0; f < kWidth; ++f) features.push_back(random.normal(at + f));
        for (u64 choice = 0; choice < 2; ++choice) {
            experts.push_back(static_cast<int>(random.bits(at + 10 + choice) % kExperts));
            weights.push_back(choice == 0 ? .7 : .3);
        }
    }
    const RoutedFeatures data{features, experts, weights, kWidth, 2, kExperts};
    const auto signs_of = [&](std::string_view name, int draws) {
        const Philox stream(9, name);
        std::vector<double> signs(static_cast<std::size_t>(draws * kSamples));
        for (std::size_t i = 0; i < signs.size(); ++i) signs[i] = stream.bits(i) % 2 == 0 ? 1 : -1;
        return signs;
    };
    FrozenFeatures input;
    input.samples = kSamples;
    input.lipschitz = .5;
    input.complexity = last_layer_complexity(data, signs_of("sigma", 16), 1, kNorm);
    const BoundResult bound = frozen_features_bound(input);
    double mean_gap = 0;
    for (int draw = 0; draw < 200; ++draw) {
        // (B_F/2m) sqrt(sum_j ||sum_i y_i w_ij phi_i||^2): half the complexity, with labels for signs.
        const double gap =
            last_layer_complexity(data, signs_of("labels" + std::to_string(draw), 1), 1, kNorm) / 2;
        EXPECT_LE(gap, bound.value);
        mean_gap += gap / 200;
    }
    EXPECT_NEAR((bound.value - bound.terms.at("confidence")) / (2 * mean_gap), 1, .05);
    // Many classes: K - 1 independent sign columns make sqrt(K - 1) of it.
    const double wide = last_layer_complexity(data, signs_of("sigma", 64), 4, kNorm);
    EXPECT_NEAR(wide / input.complexity, 2, .1);
    input.classes = 5;
    expect_close(frozen_features_bound(input).terms.at("expert"), std::sqrt(2.0) * bound.terms.at("expert"),
                 1e-14);
    expect_close(sign_average_tolerance(1, 1e4, 16, .05), 0.006790507579);
}

TEST(FrozenFeatures, ComplexityByHand) {
    // Two examples, one feature: expert 0 gets 1 * 3 and 0.5 * 4, expert 1 gets 0.5 * 4; signs (+, -), (+,
    // +).
    const std::vector<double> features{3, 4}, weights{1, 0, .5, .5}, signs{1, -1, 1, 1};
    const std::vector<int> experts{0, 1, 0, 1};
    const RoutedFeatures data{features, experts, weights, 1, 2, 2};
    const double first = std::hypot(3 - 2, 2), second = std::hypot(3 + 2, 2);
    expect_close(last_layer_complexity(data, signs, 1, 10), 10 * (first + second) / 2 / 2, 1e-15);
    // The same numbers as two columns of one draw: the first example's signs are + and -, the second's + and
    // +.
    const double columns = std::sqrt(std::pow(3 + 2, 2) + std::pow(-3 + 2, 2) + 2 * 2 + 2 * 2);
    expect_close(last_layer_complexity(data, signs, 2, 10), 10 * columns / 2, 1e-15);
}

TEST(Norms, Oracles) {
    expect_close(golowich_rademacher(8, 2, 1, 1e4), 0.2132087378);
    expect_close(golowich_rademacher(15, 3, 2, 5e4), 0.407769443182);
    expect_close(linear_rademacher(2, 3, 400), .3, 1e-15);
    const std::vector<LayerNorms> layers{{2, std::sqrt(5.0), 3},
                                         {std::sqrt(2.0), std::sqrt(2.0), std::sqrt(2.0)}};
    expect_close(spectral_complexity(layers), 9.93270403578);
    NormMeasure input{layers, 1e4, .5, 2, 2};
    expect_close(spectral_norm_measure(input).value, 9.93270403578 * 2 / (.5 * 100));
    // sqrt(B^2 L^2 h ln(Lh) prod s^2 sum F^2/s^2 / (margin^2 m)) = sqrt(4 * 4 * 2 ln4 * 8 * 2.25 / (0.25e4))
    expect_close(pac_bayes_norm_measure(input).value, std::sqrt(32 * std::log(4.0) * 18 / 2500), 1e-14);
    EXPECT_FALSE(spectral_norm_measure(input).vacuous);
    NormMeasure few = input;
    few.samples = 1;
    EXPECT_TRUE(spectral_norm_measure(few).vacuous) << "no loss in [0, 1] has a gap above 1";
}

TEST(Norms, ZeroWeightsHaveNoComplexity) {
    const LayerNorms zero{0, 0, 0}, other{2, 3, 5};
    for (const std::vector<LayerNorms>& layers : {std::vector{zero, zero}, std::vector{other, zero}}) {
        const NormMeasure input{layers, 1e4, .5, 2, 2};
        EXPECT_EQ(spectral_norm_measure(input).value, 0);
        EXPECT_EQ(pac_bayes_norm_measure(input).value, 0);
        EXPECT_FALSE(spectral_norm_measure(input).vacuous);
    }
}

TEST(PrototypeMixtures, Oracles) {
    const std::vector<double> widths{2, 8, 8, 1};
    const std::vector<std::pair<double, double>> expected{{1, 2231}, {4, 11126}, {16, 52958}, {64, 244626}};
    for (const auto& [experts, dimension] : expected) {
        const BoundResult result = prototype_mixture_vc({experts, widths});
        EXPECT_EQ(result.value, dimension) << experts;
        EXPECT_LT(result.details.sum(), dimension * std::log(2.0));
        EXPECT_GE(prototype_mixture_growth(dimension - 1, {experts, widths}).sum(),
                  (dimension - 1) * std::log(2.0));
    }
    EXPECT_EQ(prototype_mixture_growth(1e4, {1, widths}).at("routing_nats"), 0);
    expect_close(prototype_mixture_size(1, .05, 4, 20).value, 400, 1e-12);
    expect_close(prototype_mixture_size(1, .05, 4, 20).details.at("total_parameters"), 8000, 1e-12);
    expect_close(prototype_mixture_size(1, .1, 3, 10).value, 10, 1e-12);
    EXPECT_EQ(prototype_mixture_size(1, .1, 2, 1e6).value, 1) << "one network is enough";
    EXPECT_EQ(constant_experts(1, .1, 2), 64);
    EXPECT_EQ(constant_experts(1, .1, 3), 729);
    EXPECT_LT(prototype_mixture_gap({4, widths}, 1e7, .05).value,
              prototype_mixture_gap({4, widths}, 1e6, .05).value);
    EXPECT_LT(prototype_mixture_gap({4, widths}, 1e6, .05).value,
              prototype_mixture_gap({8, widths}, 1e6, .05).value);
    EXPECT_TRUE(prototype_mixture_gap({64, widths}, 1e4, .05).vacuous);
}

TEST(TransformerRate, Oracle) {
    const BoundResult result = transformer_rate({1e9, 32, 2048, 64, 8, 4.2e6, 2.1e6, 1, 10});
    expect_close(result.details.at("routing_nats"), 1614514.247);
    expect_close(result.details.at("active_parameters"), 6.72e8);
    expect_close(result.terms.at("approximation"), 0.01716035016);
    expect_close(result.terms.at("parameters"), .672);
    expect_close(result.terms.at("routing"), 0.001614514247);
    EXPECT_EQ(result.assumptions.front().status, AssumptionStatus::violated);
}

TEST(ScalingLaws, Oracles) {
    const BoundResult clark = clark_loss(1.3e9, 64);
    expect_close(clark.value, 2.049778793);
    expect_close(clark.details.at("saturated_experts"), 53.76866726);
    expect_close(clark.details.at("dense_equivalent"), 3905485741);
    expect_close(clark_loss(3.7e8, 16).value, 2.31321827701);
    expect_close(clark_loss(1e9, 1).details.at("saturated_experts"), 1.847, 1e-12);
    expect_close(clark_loss(1e9, 1).details.at("dense_equivalent"), 1e9, 1e-12);
    EXPECT_LT(clark_loss(1e9, 1e12).details.at("saturated_experts"), 314.478);
    expect_close(krajewski_loss(1e9, 1e11, 16).value, 2.92261604, 2e-9);
    expect_close(ludziejewski_loss(1e9, 2e10, 1).value, 2.57760004302);
    expect_close(ludziejewski_loss(1e9, 2e10, 8).value, 2.5087772821);
    expect_close(ludziejewski_loss(1e9, 2e11, 8).value, 2.31421515131);
    expect_close(ludziejewski_loss(1e8, 1e9, 8).value, 3.30219224352);
    expect_close(effective_tokens(1e9, 4e9, 15.387756), 3725673123);
    expect_close(effective_tokens(1e9, 4e9), 3725877521.51);
    expect_close(effective_tokens(2e8, 1e9, 15.387756), 904474541.531);
    EXPECT_EQ(effective_tokens(1e9, 1e9), 1e9);
    EXPECT_EQ(effective_tokens(1e9, 5e8), 5e8);
    expect_close(data_constrained_loss(1e9, 1e9, 4e9).value, 3.014397319);
}

TEST(ScalingLaws, ActiveExpertsOfTheTradeOff) {
    ActiveExpertsTradeOff input;
    input.samples = 1e4;
    input.experts = 16;
    input.natarajan = 16;
    input.complexity = 4;
    expect_close(continuous_active_experts(input, 32 * (1 + std::log(4.0))), 3.199057198);
    const std::vector<std::pair<double, double>> expected{
        {2, .1716367012}, {3, .2018858096}, {5, .2360387405}, {16, .2575241700}};
    input.complexity = 1;
    for (const auto& [top_k, objective] : expected) {
        const BoundResult result = best_active_experts(input);
        EXPECT_EQ(result.value, top_k);
        expect_close(result.details.at("objective"), objective);
        input.complexity *= 2;
    }
    input.samples = 1e5;
    input.complexity = 1;
    EXPECT_EQ(best_active_experts(input).value, 4);
    input.complexity = 2;
    EXPECT_EQ(best_active_experts(input).value, 16);
}

}  // namespace
}  // namespace moesaic
