// The layout certificate: passes wherever the product is right, and sees each planted defect.
#include "launch/layout_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/cpu/bf16_products.h"
#include "tests/support/tiny_run.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

using Overrides = std::vector<std::string>;

std::string name_of(const LayoutResult& result) {
    return fmt::format("{} ranks, expert-parallel {}: {}", result.world, result.expert_parallel, result.why);
}

LayoutCheckOptions check_of(std::vector<int> worlds, i64 steps, const PlantedDefects& defects = {}) {
    return {std::move(worlds), steps, defects};
}

std::vector<LayoutResult> expect_all_ok(const Overrides& overrides, const LayoutCheckOptions& options,
                                        std::size_t layouts) {
    std::vector<LayoutResult> results = check_layouts(tiny_run(overrides), options);
    EXPECT_EQ(results.size(), layouts);
    for (const LayoutResult& one : results) {
        EXPECT_TRUE(one.ok) << name_of(one);
        EXPECT_TRUE(one.routing_as_reference || one.worst_tensor == "all tensors") << name_of(one);
        EXPECT_LE(one.layout_difference, 1e-6) << name_of(one);
        EXPECT_EQ(one.routing_differs_at, 0) << name_of(one);
        EXPECT_GT(one.loss_aux, 0) << name_of(one);
    }
    return results;
}

/// One rank stays right; every layout of more ranks has to be found wrong, for this reason.
void expect_seen(const PlantedDefects& defects, const std::string& why, const Overrides& overrides = {}) {
    const std::vector<LayoutResult> results =
        check_layouts(tiny_run(overrides), check_of({1, 2, 4}, 1, defects));
    ASSERT_EQ(results.size(), 6U);
    for (const LayoutResult& one : results) {
        EXPECT_EQ(one.ok, one.world == 1) << name_of(one);
        if (one.world > 1) {
            EXPECT_THAT(one.why, HasSubstr(why)) << name_of(one);
        }
    }
}

class LayoutCheckPrecision : public testing::TestWithParam<const char*> {};

TEST_P(LayoutCheckPrecision, EveryLayoutUpToEightRanks) {
    expect_all_ok({std::string("train.precision=") + GetParam()}, check_of({1, 2, 4, 8}, 3), 10);
}

/// Five sequences in micro-batches of two: three micro-batches, the last one short, which no number of ranks
/// but one and three divides; and exchanges in chunks of at most 0.3 times the mean load.
TEST_P(LayoutCheckPrecision, UnevenBatchInChunks) {
    expect_all_ok({std::string("train.precision=") + GetParam(), "train.batch_sequences=5",
                   "train.micro_sequences=2", "parallel.receive_budget=0.3"},
                  check_of({1, 2, 3, 4, 8}, 2), 11);
}

/// Sums of tiles depend on where 32 addends begin: rows that fill no tile wait for the rest of their
/// source's.
TEST(LayoutCheck, TilesOfBf16InManyRounds) {
    const ScopedBf16Products restored(bf16_products());
    expect_all_ok({"train.precision=bf16", "cpu.bf16_products=tiles", "train.batch_sequences=5",
                   "train.micro_sequences=2", "parallel.receive_budget=0.3"},
                  check_of({1, 2, 4}, 2), 6);
}

/// One expert a rank at 8 ranks: its sources are summed in another order there, and no bits are asked for.
TEST_P(LayoutCheckPrecision, PartsOfOneExpertARank) {
    const auto results = expect_all_ok({std::string("train.precision=") + GetParam(), "parallel.chunks=3"},
                                       check_of({1, 4, 8}, 2), 8);
    for (const LayoutResult& result : results)
        EXPECT_EQ(result.expert_bits.has_value(), result.world == result.expert_parallel && result.world < 8)
            << result.world << " ranks, " << result.expert_parallel;
}

INSTANTIATE_TEST_SUITE_P(Precisions, LayoutCheckPrecision, testing::Values("fp32", "fp64", "bf16"),
                         [](const auto& test) { return std::string(test.param); });

class LayoutCheckScope : public testing::TestWithParam<const char*> {
  protected:
    [[nodiscard]] std::string scope() const { return std::string("model.moe.balance.scope=") + GetParam(); }
};

TEST_P(LayoutCheckScope, IsIndependentOfTheLayout) {
    expect_all_ok({scope(), "train.micro_sequences=2"}, check_of({1, 2, 4}, 2), 6);
}

/// Its coefficient is well above 0, and so is the loss itself: the check compares it at step 1 whatever the
/// batch.
TEST_P(LayoutCheckScope, LocalBalanceLossIsSeen) {
    PlantedDefects defects;
    defects.local_balance_loss = true;
    expect_seen(defects, "balance losses",
                {scope(), "model.moe.balance.aux=0.01", "train.batch_sequences=16"});
}

INSTANTIATE_TEST_SUITE_P(Scopes, LayoutCheckScope, testing::Values("sequence", "micro", "global"),
                         [](const auto& test) { return std::string(test.param); });

/// Convention, scope and importance; capacities that drop, per sequence and per micro-batch.
class LayoutCheckBalance : public testing::TestWithParam<Overrides> {};

TEST_P(LayoutCheckBalance, IsIndependentOfTheLayout) {
    Overrides overrides = GetParam();
    overrides.insert(overrides.end(), {"train.batch_sequences=7", "train.micro_sequences=2",
                                       "model.moe.balance.importance=0.02"});
    expect_all_ok(overrides, check_of({1, 2, 4}, 3), 6);
}

std::vector<Overrides> balance_cases() {
    std::vector<Overrides> cases;
    for (const char* convention : {"megatron", "gshard", "hf", "switch"}) {
        for (const char* scope : {"sequence", "micro", "global"}) {
            cases.push_back({std::string("model.moe.balance.convention=") + convention,
                             std::string("model.moe.balance.scope=") + scope});
        }
    }
    for (const char* capacity : {"{factor: 1.0}", "{factor: 0.8, policy: position, renormalize: true}",
                                 "{factor: 0.7, per: micro, rounding: floor, renormalize: true}",
                                 "{factor: 1.0, per: micro, pad: true}"}) {
        cases.push_back({std::string("model.moe.capacity=") + capacity, "model.moe.balance.scope=global"});
    }
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, LayoutCheckBalance, testing::ValuesIn(balance_cases()));

/// Experts that choose tokens have as many whatever they choose: what they chose decides whether gradients
/// can be compared with those in f64.
TEST(LayoutCheck, ChoicesOfExpertsAreCompared) {
    const RunSetup run = tiny_run(
        {"run.seed=6", "model.moe.router.kind=expert_choice", "model.moe.router.allow_noncausal=true"});
    for (const LayoutResult& one : check_layouts(run, check_of({1, 2}, 1))) {
        EXPECT_TRUE(one.ok) << name_of(one);
        EXPECT_FALSE(one.routing_as_reference) << "another seed: no near tie falls the other way in f64";
    }
}

TEST(LayoutCheck, LossesThatAreNotFiniteDoNotPass) {
    const RunSetup run = tiny_run({"optimizer.eps=0", "optimizer.schedule.warmup=0"});
    for (const LayoutResult& one : check_layouts(run, check_of({1, 2}, 4))) {
        EXPECT_FALSE(one.ok) << name_of(one);
        EXPECT_THAT(one.why, HasSubstr("is not finite"));
        EXPECT_GT(one.nonfinite_at, 1);
        EXPECT_TRUE(std::isnan(one.later_loss_difference));
    }
}

TEST(LayoutCheck, UnshardedOptimizerState) {
    expect_all_ok({"parallel.zero=0"}, check_of({1, 2, 4}, 2), 6);
}

/// Bits against the smallest layout of as many slices, gradients against whole experts in f64.
TEST(LayoutCheck, SlicedExperts) {
    for (const char* precision : {"train.precision=fp32", "train.precision=fp64", "train.precision=bf16"})
        expect_all_ok(
            {"parallel.expert_tensor=2", precision, "train.batch_sequences=5", "train.micro_sequences=2"},
            check_of({1, 2, 3, 4, 8}, 2), 6);
    const RunSetup run = tiny_run({"parallel.expert_tensor=2"});
    EXPECT_THROW((void)check_layouts(run, check_of({1, 3}, 1)), UserError);
}

std::vector<std::string> left_out(const Overrides& overrides, const std::vector<int>& worlds) {
    std::vector<std::string> texts;
    for (const LeftOutLayout& one : left_out_layouts(tiny_run(overrides), worlds))
        texts.push_back(text_of(one));
    return texts;
}

TEST(LayoutCheck, WhatIsLeftOutIsNamed) {
    using testing::ElementsAre;
    EXPECT_THAT(left_out({}, {1, 2, 4}), ElementsAre());
    EXPECT_THAT(left_out({}, {6}),
                ElementsAre("6 ranks, expert parallel 3: 8 experts cannot be shared out evenly",
                            "6 ranks, expert parallel 6: 8 experts cannot be shared out evenly"));
    EXPECT_THAT(left_out({"parallel.expert_tensor=2"}, {1, 2, 3, 4}),
                ElementsAre("1 rank: no multiple of parallel.expert_tensor: 2",
                            "3 ranks: no multiple of parallel.expert_tensor: 2"));
}

/// Nothing compared is nothing certified.
TEST(LayoutCheck, AtLeastOneLayoutHasToRun) {
    const RunSetup momlp = load_run(std::string(MOESAIC_SOURCE_DIR) + "/configs/momlp.yaml", {});
    try {
        (void)check_layouts(momlp, check_of({3}, 1));
        ADD_FAILURE() << "sixteen experts on three ranks";
    } catch (const UserError& error) {
        EXPECT_THAT(error.what(), HasSubstr("runs on none of them"));
        EXPECT_THAT(error.what(),
                    HasSubstr("3 ranks, expert parallel 1: a momlp's experts are shared out to all "));
        EXPECT_THAT(error.what(), HasSubstr("3 ranks, expert parallel 3: "));
    }
}

/// Expert gradients part by part, their sums exact: in micro-batches of one, with chunks, recomputed.
TEST(LayoutCheck, ElasticWeightsAreTheSameBits) {
    for (const char* precision : {"train.precision=fp32", "train.precision=bf16"}) {
        const RunSetup run = tiny_run({"train.determinism=elastic", precision, "train.batch_sequences=5",
                                       "train.micro_sequences=1", "parallel.receive_budget=0.3"});
        for (const LayoutResult& one : check_layouts(run, check_of({1, 2, 3, 4, 8}, 4))) {
            EXPECT_TRUE(one.ok) << name_of(one);
            EXPECT_TRUE(one.weight_bits) << name_of(one);
            EXPECT_EQ(one.later_loss_difference, 0) << name_of(one);
        }
    }
}

/// Of which a run that need not be elastic would say nothing.
TEST(LayoutCheck, OtherWeightsOfAnElasticRunAreSeen) {
    PlantedDefects defects;
    defects.expert_gradient_factor = 1 + 1e-7;
    const RunSetup run = tiny_run({"train.determinism=elastic"});
    for (const LayoutResult& one : check_layouts(run, check_of({1, 2}, 2, defects)))
        EXPECT_EQ(one.ok, one.world == 1) << name_of(one);
}

TEST(LayoutCheck, SmallGradientBuckets) {
    expect_all_ok({"parallel.bucket_bytes=1000"}, check_of({1, 2, 4}, 2), 6);
}

TEST(LayoutCheck, ExpertGradientTimesTwoIsSeen) {
    PlantedDefects defects;
    defects.expert_gradient_factor = 2;
    expect_seen(defects, ".experts.");
}

/// The room that bf16 has against f64 is none between layouts.
TEST(LayoutCheck, ASmallDefectIsSeenInBf16) {
    PlantedDefects defects;
    defects.expert_gradient_factor = 1.0001;
    expect_seen(defects, "depends on the layout", {"train.precision=bf16"});
}

TEST(LayoutCheck, RecomputationIsIndependentOfTheLayout) {
    expect_all_ok({"train.recompute=layer", "model.moe.balance.scope=global"}, check_of({1, 2, 4}, 2), 6);
}

TEST(LayoutCheck, NormWithoutExpertsIsSeen) {
    PlantedDefects defects;
    defects.norm_skips_experts = true;
    expect_seen(defects, "clip norm is wrong");
}

/// Routing follows wrong weights sooner or later, and the check says from which step on.
TEST(LayoutCheck, FirstStepOfOtherRoutingIsTold) {
    PlantedDefects defects;
    defects.norm_skips_experts = true;
    const RunSetup run = tiny_run({"optimizer.lr=0.02", "optimizer.schedule.warmup=1", "optimizer.clip=0.1"});
    for (const LayoutResult& one : check_layouts(run, check_of({1, 2}, 12, defects))) {
        if (one.world == 1) {
            EXPECT_EQ(one.routing_differs_at, 0);
        } else {
            EXPECT_GT(one.routing_differs_at, 1) << name_of(one);
            EXPECT_GT(one.later_loss_difference, 0) << name_of(one);
        }
    }
}

}  // namespace
}  // namespace moesaic
