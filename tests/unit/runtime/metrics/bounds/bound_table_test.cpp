// The table of bounds: every row can be computed, tells what it lacks, and is in the README.
#include "runtime/metrics/bounds/bound_table.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "tests/support/source_folder.h"
#include "tests/unit/runtime/metrics/bounds/close.h"

namespace moesaic {
namespace {

/// Something for every input.
BoundInputs everything() {
    BoundInputs in;
    for (const BoundInputField& field : bound_input_fields()) {
        if (is_given(in, field)) continue;
        if (field.number)
            in.*field.number = std::clamp(2.0, field.low, field.high);
        else
            in.*field.list = {std::clamp(2.0, field.low, field.high), std::clamp(2.0, field.low, field.high)};
    }
    in.samples = in.heldout_samples = in.fresh_samples = in.gibbs_samples = 1e6;
    in.experts = 8;
    in.heldout_mean = in.fresh_mean = in.fresh_past_mean = in.train_loss = in.gibbs_loss = .1;
    in.heldout_variance = .01;
    in.heldout_errors = 1e5;
    in.rank_weights = {.6, .4};
    in.vocabulary.reset();
    in.tokens = 4;
    in.router_hidden.clear();
    return in;
}

TEST(BoundTable, EveryRowIsComputedAndComplete) {
    std::set<std::string_view> names;
    const BoundInputs in = everything();
    EXPECT_TRUE(conflicts(in).empty());
    for (const Bound& bound : bound_table()) {
        SCOPED_TRACE(bound.name);
        EXPECT_TRUE(names.insert(bound.name).second);
        EXPECT_EQ(find_bound(bound.name), &bound);
        EXPECT_FALSE(bound.help.empty() || bound.source.empty());
        EXPECT_TRUE(missing_inputs(bound, in).empty());
        const BoundResult result = bound.compute(in);
        EXPECT_TRUE(std::isfinite(result.value));
        EXPECT_FALSE(result.assumptions.empty());
        if (!result.terms.list.empty() && bound.kind != BoundKind::dimension)
            expect_close(result.terms.sum(), result.value, 1e-14);
        for (const Assumption& assumption : result.assumptions) EXPECT_FALSE(assumption.meaning.empty());
        // No certificate where the row says it is none, and the other way round.
        const bool certificate = bound.kind == BoundKind::gap || bound.kind == BoundKind::risk;
        const bool denied = std::any_of(
            result.assumptions.begin(), result.assumptions.end(),
            [](const auto& a) { return a.name == "certificate" && a.status == AssumptionStatus::violated; });
        if (certificate || bound.kind != BoundKind::dimension) {
            EXPECT_NE(certificate, denied);
        }
    }
    EXPECT_EQ(find_bound("publishd"), nullptr);
}

TEST(BoundTable, WhatIsNeededIsMissedAndNothingElse) {
    for (const Bound& bound : bound_table()) {
        SCOPED_TRACE(bound.name);
        BoundInputs needed;  // the defaults, and only what the row asks for
        const BoundInputs all = everything();
        std::istringstream words{std::string(bound.needs)};
        for (std::string word; words >> word;) {
            const std::string name = word.substr(0, word.find('|'));
            const BoundInputField& field = bound_input_field(name);
            EXPECT_THAT(missing_inputs(bound, needed), testing::Contains(word));
            if (field.number)
                needed.*field.number = all.*field.number;
            else
                needed.*field.list = all.*field.list;
        }
        EXPECT_TRUE(missing_inputs(bound, needed).empty());
        // All others become nan, which shows if a row reads what it does not ask for.
        const std::set<std::string_view> taken_if_given{"stacked_norm", "output_bound",  "k_eff",
                                                        "vocabulary",   "router_inputs", "natarajan"};
        for (const BoundInputField& field : bound_input_fields()) {
            if (field.number && !is_given(needed, field) && !taken_if_given.contains(field.name))
                needed.*field.number = std::nan("");
        }
        EXPECT_TRUE(std::isfinite(bound.compute(needed).value));
    }
}

TEST(BoundTable, NamesOfTheContract) {
    for (const char* name : {"published", "published_exact_binomial", "corrected_uniform",
                             "corrected_softmax", "corrected_frozen", "prequential", "heldout"}) {
        EXPECT_NE(find_bound(name), nullptr) << name;
    }
}

TEST(BoundTable, AgreesWithTheFunctions) {
    BoundInputs in;
    in.samples = 1e4;
    in.experts = 8;
    in.top_k = 2;
    in.router_inputs = 16;
    expect_close(find_bound("corrected_uniform")->compute(in).value, 0.508932755418);
    expect_close(find_bound("corrected_softmax")->compute(in).value, 0.729460040901);
    expect_close(find_bound("corrected_softmax_all")->compute(in).value, 0.73462415579);
    expect_close(find_bound("corrected_frozen")->compute(in).value, 0.0688072766483);
    in.rademacher = .01;
    in.natarajan = 16;
    expect_close(find_bound("published")->compute(in).value, 0.2912212836);
    expect_close(find_bound("published_exact_binomial")->compute(in).value, 0.2721501117);
    in.train_loss = 5;
    in.samples = 8009762;
    in.bits = 1e5;
    in.subsample = 10000;
    in.smoothing = .1;
    in.vocabulary = 50257;
    expect_close(find_bound("lotfi")->compute(in).value, 6.465852518);
    EXPECT_TRUE(conflicts(in).empty()) << "5 bits lie in the range of smoothed bits";
    EXPECT_FALSE(find_bound("lotfi")->compute(in).vacuous);
}

TEST(BoundTable, RouterFromItsNatarajanDimension) {
    BoundInputs in;
    in.samples = 1e4;
    in.experts = 8;
    in.top_k = 2;
    in.natarajan = 128;
    const BoundResult uniform = find_bound("corrected_uniform")->compute(in);
    expect_close(uniform.details.at("routing_nats"), 2031.967922);
    // 128/7 = 18.3: a linear router reads at most 18 inputs and a bias.
    BoundInputs known = in;
    known.router_inputs = 18;
    EXPECT_EQ(find_bound("corrected_softmax")->compute(in).value,
              find_bound("corrected_softmax")->compute(known).value);
    in.router_bias = known.router_bias = false;
    known.router_inputs = 19;
    EXPECT_EQ(find_bound("corrected_softmax")->compute(in).value,
              find_bound("corrected_softmax")->compute(known).value);
    in.natarajan = 0;
    EXPECT_EQ(find_bound("corrected_uniform")->compute(in).terms.at("routing"), 0);
}

TEST(BoundTable, TheGateSaysWhichBoundsSpeakOfTheModel) {
    BoundInputs in = everything();
    in.gate = GateKind::softmax;
    for (const auto& [name, status] : {std::pair{"corrected_softmax", AssumptionStatus::holds},
                                       std::pair{"corrected_uniform", AssumptionStatus::violated}}) {
        const BoundResult result = find_bound(name)->compute(in);
        const auto found = std::find_if(result.assumptions.begin(), result.assumptions.end(),
                                        [](const Assumption& a) { return a.name == "gate_covered"; });
        ASSERT_NE(found, result.assumptions.end());
        EXPECT_EQ(found->status, status) << name;
    }
}

TEST(BoundTable, ConflictsAreAllFound) {
    BoundInputs in = everything();
    in.top_k = 9;
    in.heldout_errors = 1e7;
    in.heldout_mean = 1.5;
    in.classes = 1;
    in.unique_tokens = 5;
    std::vector<std::string_view> fields;
    for (const BoundInputConflict& conflict : conflicts(in)) fields.push_back(conflict.field);
    EXPECT_THAT(fields, testing::ElementsAre("top_k", "heldout_errors", "heldout_mean", "unique_tokens",
                                             "classes", "rank_weights"));
}

TEST(BoundTable, IsInTheReadme) {
    std::ifstream stream(std::string(MOESAIC_SOURCE_DIR) + "/runtime/metrics/bounds/README.md");
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    for (const Bound& bound : bound_table()) {
        EXPECT_NE(text.find("| `" + std::string(bound.name) + "` |"), std::string::npos) << bound.name;
    }
}

}  // namespace
}  // namespace moesaic
