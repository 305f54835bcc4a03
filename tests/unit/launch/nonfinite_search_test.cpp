// The first layer, expert and rank of a number that is not finite, on every layout.
#include "launch/nonfinite_search.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mutex>

#include "comm/row_checks.h"
#include "comm/thread_communicator.h"
#include "launch/faults/fault_injector.h"
#include "launch/training_step.h"
#include "tests/support/tiny_run.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

struct Layout {
    int world = 1, expert_parallel = 1;
};
const std::vector<Layout> kLayouts{{1, 1}, {2, 1}, {2, 2}, {3, 1}, {4, 2}, {8, 8}};

RunSetup uneven_run(std::vector<std::string> overrides = {}) {
    overrides.insert(overrides.end(), {"train.batch_sequences=5", "train.micro_sequences=2", "train.steps=4",
                                       "optimizer.schedule.warmup=1"});
    return tiny_run(overrides);
}

using Prepare = std::function<void(RankRuntime&)>;

/// What step 2 brings, found to be the same on every rank.
StepResult second_step(
    const RunSetup& run, Layout layout, const std::string& faults, NonfiniteOrigin& origin,
    const Prepare& prepare = [](RankRuntime&) {}) {
    std::mutex mutex;
    StepResult result;
    std::vector<std::string> texts;
    run_ranks(
        layout.world,
        [&](Communicator& world) {
            RuntimeOptions options;
            options.expert_parallel = layout.expert_parallel;
            RankRuntime runtime(run.config, run.spec, world, options);
            TrainingStep training(runtime, run.config, *run.dataset);
            std::optional<FaultInjector> injector;
            if (!faults.empty()) training.inject(&injector.emplace(parse_faults(faults), world.rank()));
            training.update(1, training.forward_backward(1).grad_norm);
            prepare(runtime);
            StepResult mine = training.forward_backward(2);
            NonfiniteOrigin found;
            if (!std::isfinite(mine.loss) || !std::isfinite(mine.grad_norm))
                found = training.find_nonfinite(2);
            runtime.compute->synchronize();
            runtime.exchange->synchronize();
            const std::lock_guard lock(mutex);
            texts.push_back(found.text());
            result = std::move(mine);
            origin = found;
        },
        120);
    for (const std::string& text : texts) EXPECT_EQ(text, texts.front());
    return result;
}

TEST(NonfiniteSearch, NamesTheExpertWhoseGradientItIs) {
    const RunSetup run = uneven_run();
    for (const Layout& layout : kLayouts) {
        SCOPED_TRACE(fmt::format("{} ranks, {} expert-parallel", layout.world, layout.expert_parallel));
        NonfiniteOrigin origin;
        const StepResult result = second_step(run, layout, "nan:layer=1,expert=5,step=2", origin);
        EXPECT_TRUE(std::isfinite(result.loss));
        EXPECT_TRUE(std::isnan(result.grad_norm));
        EXPECT_EQ(origin.stage, NonfiniteStage::gradient);
        EXPECT_EQ(origin.layer, 1);
        EXPECT_EQ(origin.expert, 5);
        const int holder = 5 / (8 / layout.expert_parallel);  // of replica 0, where it was put
        if (layout.expert_parallel == layout.world) {
            EXPECT_EQ(origin.rank, holder);
        }
        EXPECT_THAT(origin.text(), HasSubstr("first in the gradient of model.layers.1.mlp.experts.5."));
    }
}

TEST(NonfiniteSearch, NamesWeights) {
    const RunSetup run = uneven_run();
    for (const Layout& layout : kLayouts) {
        SCOPED_TRACE(fmt::format("{} ranks, {} expert-parallel", layout.world, layout.expert_parallel));
        NonfiniteOrigin origin;
        (void)second_step(run, layout, "nan:layer=0,expert=2,step=2,in=weight", origin);
        ASSERT_NE(origin.stage, NonfiniteStage::none) << "no token has visited the expert: choose another";
        EXPECT_EQ(origin.stage, NonfiniteStage::weights);
        EXPECT_EQ(origin.layer, 0);
        EXPECT_EQ(origin.expert, 2);
        EXPECT_EQ(origin.rank, 2 / (8 / layout.expert_parallel));
        EXPECT_THAT(origin.text(),
                    HasSubstr("the weights themselves are not finite: model.layers.0.mlp.experts.2."));
    }
}

/// Weights that are finite and whose products with anything are not.
void enlarge(RankRuntime& runtime, const std::string& part) {
    for (Parameter& parameter : runtime.store.parameters()) {
        if (parameter.name.find(part) == std::string::npos) continue;
        float* const values = parameter.value.as<float>();
        std::fill_n(values, parameter.value.elements(), 3e38F);
    }
    runtime.store.pack(*runtime.compute);
}

TEST(NonfiniteSearch, NamesTheLayerOfTheForward) {
    const RunSetup run = uneven_run();
    struct Case {
        std::string part;
        std::optional<i64> layer, expert;
        std::string what;
    };
    const std::vector<Case> cases{
        {"layers.1.mlp.experts.3.", 1, 3, "layer 1, expert 3: experts"},
        {"layers.1.self_attn.", 1, {}, "layer 1: attention"},
        {"lm_head", {}, {}, "the head"},
    };
    for (const Layout& layout : {Layout{1, 1}, Layout{2, 2}, Layout{4, 2}}) {
        for (const Case& one : cases) {
            SCOPED_TRACE(fmt::format("{} ranks, {}", layout.world, one.part));
            NonfiniteOrigin origin;
            const StepResult result = second_step(run, layout, "", origin,
                                                  [&](RankRuntime& runtime) { enlarge(runtime, one.part); });
            EXPECT_FALSE(std::isfinite(result.loss));
            EXPECT_EQ(origin.stage, NonfiniteStage::forward) << origin.text();
            EXPECT_EQ(origin.layer, one.layer) << origin.text();
            EXPECT_EQ(origin.expert, one.expert) << origin.text();
            EXPECT_THAT(origin.text(), HasSubstr(one.what));
        }
    }
}

/// Of gradients that are finite and too large for exact sums the message says so; of NaN it does not.
TEST(NonfiniteSearch, TellsTheLimitOfExactSums) {
    const RunSetup run = uneven_run({"train.determinism=elastic"});
    const auto scale_head = [](RankRuntime& runtime) {
        for (Parameter& parameter : runtime.store.parameters()) {
            if (parameter.name != "lm_head.weight") continue;
            float* const values = parameter.value.as<float>();
            for (i64 i = 0; i < parameter.value.elements(); ++i) values[i] *= 1e5F;
        }
        runtime.store.pack(*runtime.compute);
    };
    for (const Layout& layout : {Layout{1, 1}, Layout{2, 2}, Layout{4, 2}}) {
        SCOPED_TRACE(fmt::format("{} ranks, {} expert-parallel", layout.world, layout.expert_parallel));
        NonfiniteOrigin origin;
        StepResult result = second_step(run, layout, "", origin, scale_head);
        EXPECT_TRUE(std::isfinite(result.loss));
        EXPECT_FALSE(std::isfinite(result.grad_norm));
        EXPECT_EQ(origin.limit, 256.0 / 3);
        EXPECT_THAT(origin.text(), HasSubstr("beyond 85.33, the most that train.determinism: elastic sums"));
        result = second_step(run, layout, "nan:layer=1,expert=5,step=2", origin);
        EXPECT_EQ(origin.stage, NonfiniteStage::gradient);
        EXPECT_EQ(origin.limit, std::nullopt) << origin.text();
    }
    NonfiniteOrigin origin;
    (void)second_step(uneven_run(), {1, 1}, "", origin, scale_head);
    EXPECT_EQ(origin.stage, NonfiniteStage::none) << "without exact sums there is no limit";
}

TEST(IdleRank, ChangesNoBitOfTheStep) {
    const RunSetup run = uneven_run({"train.batch_sequences=11"});
    for (const Layout& layout : {Layout{2, 2}, Layout{3, 1}, Layout{4, 2}, Layout{8, 8}}) {
        SCOPED_TRACE(layout.world);
        NonfiniteOrigin none;
        const StepResult usual = second_step(run, layout, "", none);
        for (const int idle : {0, 1, layout.world - 1}) {
            const StepResult uneven =
                second_step(run, layout, fmt::format("zero-tokens:rank={},step=2", idle), none);
            EXPECT_EQ(uneven.loss, usual.loss);
            EXPECT_EQ(uneven.loss_aux, usual.loss_aux);
            EXPECT_EQ(uneven.grad_norm, usual.grad_norm);
            EXPECT_EQ(uneven.sequence_loss, usual.sequence_loss);
            EXPECT_EQ(uneven.expert_counts, usual.expert_counts);
        }
    }
}

/// Checksums are of the rank's thread, and so are faults.
TEST(RowChecks, NameTheRanksBetweenWhichABitFlips) {
    const RunSetup run = uneven_run({"parallel.checksums=true"});
    std::mutex mutex;
    std::vector<std::string> errors;
    for (const std::string fault : {"", "flip:rank=1,step=2", "flip:rank=0,step=2,bit=3"}) {
        errors.clear();
        const auto body = [&](Communicator& world) {
            row_checks() = {.checksums = true, .tamper = {}};
            RuntimeOptions options;
            options.expert_parallel = 2;
            RankRuntime runtime(run.config, run.spec, world, options);
            TrainingStep training(runtime, run.config, *run.dataset);
            std::optional<FaultInjector> injector;
            if (!fault.empty()) training.inject(&injector.emplace(parse_faults(fault), world.rank()));
            try {
                for (const i64 step : {1, 2, 3})
                    training.update(step, training.forward_backward(step).grad_norm);
            } catch (const AbortedError&) {
                throw;
            } catch (const Error& error) {
                const std::lock_guard lock(mutex);
                errors.emplace_back(error.what());
                throw;
            }
            runtime.compute->synchronize();
            runtime.exchange->synchronize();
        };
        if (fault.empty()) {
            run_ranks(2, body, 60);
            EXPECT_TRUE(errors.empty());
            continue;
        }
        EXPECT_THROW(run_ranks(2, body, 60), Error);
        ASSERT_EQ(errors.size(), 1u);
        const bool second = fault.find("rank=1") != std::string::npos;
        EXPECT_THAT(errors[0], HasSubstr(fmt::format("rows from rank {} of 'experts' are not what it sent in "
                                                     "all_to_all_rows 'dispatch, layer 0'",
                                                     second ? 0 : 1)));
    }
}

}  // namespace
}  // namespace moesaic
