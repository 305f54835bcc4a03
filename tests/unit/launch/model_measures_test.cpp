// What the bounds of a gap are told of a model.
#include "launch/model_measures.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "layers/router.h"
#include "runtime/metrics/bounds/bound_table.h"
#include "runtime/metrics/explain.h"

namespace moesaic {
namespace {

constexpr TrainedUnits kTrained{1e6, 64e6};

ModelSpec mixture(const std::string& router) {
    ModelSpec spec;
    spec.vocabulary = 16;
    spec.width = 32;
    spec.hidden = 8;
    spec.experts = 8;
    spec.top_k = 2;
    spec.router.kind = router;
    return spec;
}

BoundInputs inputs_of(const ModelSpec& spec, const TrainedUnits& trained = kTrained) {
    LayerNormsOfExperts layer;
    layer.radius = 3;
    for (i64 expert = 0; expert < spec.experts; ++expert)
        layer.experts.push_back({{{1, 1, 1, 1}, {1, 1, 1, 1}}, 0.5});
    return gap_bound_inputs(spec, {layer}, trained, 1, 0.05);
}

BoundResult corrected(const ModelSpec& spec, const std::string& gate,
                      const TrainedUnits& trained = kTrained) {
    return find_bound("corrected_" + gate)->compute(inputs_of(spec, trained));
}

AssumptionStatus status(const BoundResult& result, std::string_view name) {
    const auto found = std::find_if(result.assumptions.begin(), result.assumptions.end(),
                                    [&](const Assumption& one) { return one.name == name; });
    EXPECT_NE(found, result.assumptions.end()) << name;
    return found == result.assumptions.end() ? AssumptionStatus::holds : found->status;
}

/// The gates that our bounds say they speak of, by name; all else must be violated.
std::string covered(const ModelSpec& spec) {
    std::string names;
    for (const char* gate : {"frozen", "uniform", "rank", "softmax", "softmax_all"}) {
        BoundInputs inputs = inputs_of(spec);
        inputs.rank_weights = {0.5, 0.5};
        const BoundResult result = find_bound(std::string("corrected_") + gate)->compute(inputs);
        if (speaks_of_the_model(result)) names += (names.empty() ? "" : " ") + std::string(gate);
        EXPECT_NE(status(result, "gate_covered"), AssumptionStatus::unknown)
            << spec.router.kind << " " << gate;
    }
    return names;
}

TEST(GapBoundInputs, OneKindOfGateOrNoneSpeaksOfEachRouter) {
    const std::map<std::string, std::string> expected{
        {"top_k", "softmax"},  {"noisy_top_k", "softmax"}, {"switch", "softmax"}, {"sigmoid_bias", ""},
        {"group_limited", ""}, {"sinkhorn", ""},           {"expert_choice", ""}, {"nearest_prototype", ""},
        {"hash", "frozen"},    {"uniform", "frozen"},      {"replay", "frozen"},
    };
    for (const RouterEntry& router : router_table()) {
        ASSERT_TRUE(expected.contains(std::string(router.name))) << router.name;
        EXPECT_EQ(covered(mixture(std::string(router.name))), expected.at(std::string(router.name)))
            << router.name;
    }
}

TEST(GapBoundInputs, TheGateFollowsScoreNormalizationAndCapacity) {
    ModelSpec spec = mixture("top_k");
    spec.router.normalize = false;
    EXPECT_EQ(covered(spec), "softmax_all");
    spec.router.score = RouterScore::softmax_over_top_k;
    EXPECT_EQ(covered(spec), "softmax");
    spec.router.score = RouterScore::sigmoid;
    EXPECT_EQ(covered(spec), "");
    spec = mixture("top_k");
    spec.top_k = 1;
    EXPECT_EQ(find_bound("corrected_uniform")->compute(inputs_of(spec)).terms.at("gate"), 0);
    spec.router.kind = "sinkhorn";
    EXPECT_FALSE(speaks_of_the_model(corrected(spec, "uniform"))) << "its choices depend on other tokens";
    spec = mixture("top_k");
    spec.capacity.emplace();
    EXPECT_EQ(covered(spec), "") << "drops depend on other tokens";
}

TEST(GapBoundInputs, TheScaleOfTheWeightsIsTheExperts) {
    ModelSpec spec = mixture("top_k");
    const BoundResult one = corrected(spec, "softmax");
    spec.router.scale = 2;
    const BoundResult two = corrected(spec, "softmax");
    EXPECT_DOUBLE_EQ(two.terms.at("expert"), 2 * one.terms.at("expert"));
    // The best cover is another one: per radius of the cover the gate term doubles.
    const auto gate = [](const BoundResult& bound) {
        return bound.terms.at("gate") /
               gate_cover_radius(bound.details.at("gate_step"), bound.details.at("gate_levels"), 2);
    };
    EXPECT_NEAR(gate(two), 2 * gate(one), 1e-9 * gate(one));
}

TEST(GapBoundInputs, EveryRowOfAUnitIsRouted) {
    const ModelSpec spec = mixture("top_k");
    const BoundResult rows = corrected(spec, "softmax", {1e6, 64e6}),
                      one = corrected(spec, "softmax", {1e6, 1e6});
    EXPECT_DOUBLE_EQ(rows.terms.at("confidence"), one.terms.at("confidence")) << "of units";
    EXPECT_DOUBLE_EQ(rows.terms.at("expert"), one.terms.at("expert"));
    EXPECT_GT(rows.details.at("routing_nats"), one.details.at("routing_nats"));
    EXPECT_EQ(*inputs_of(spec, {1e6, 64e6}).routed_tokens, 64);
    EXPECT_EQ(*inputs_of(spec, {1e6, 64e6}).samples, 1e6);
}

TEST(GapBoundInputs, SayWhatTheTheoremDoesNotCover) {
    for (const ActivationKind activation :
         {ActivationKind::relu, ActivationKind::gelu, ActivationKind::prelu, ActivationKind::swiglu}) {
        ModelSpec spec = mixture("top_k");
        spec.activation = activation;
        const BoundResult result = corrected(spec, "softmax");
        for (const char* name :
             {"norms_a_priori", "radius_apriori", "layers_below_frozen", "experts_covered"})
            EXPECT_EQ(status(result, name), AssumptionStatus::violated) << name;
        EXPECT_EQ(status(result, "independent_samples"), AssumptionStatus::unknown);
    }
    BoundInputs given;
    given.samples = 1e4;
    given.experts = 8;
    given.top_k = 2;
    given.router_inputs = 16;
    const BoundResult result = find_bound("corrected_softmax")->compute(given);
    for (const char* name : {"norms_a_priori", "radius_apriori", "experts_covered", "gate_covered"})
        EXPECT_EQ(status(result, name), AssumptionStatus::unknown) << name << " of numbers alone";
}

}  // namespace
}  // namespace moesaic
