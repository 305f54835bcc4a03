// Every router of the table on several layouts, ranks as threads: the same routing, the same bits.
#include "layers/router.h"
#include "tests/support/router_variants.h"
#include "tests/support/tiny_run.h"
#include "tests/support/training_run.h"

namespace moesaic {
namespace {

/// Four steps with eight experts, uneven micro-batches and several rounds of exchange.
struct RouterRun {
    explicit RouterRun(std::vector<std::string> overrides) {
        for (const char* one : {"parallel.bucket_bytes=20000", "train.batch_sequences=7",
                                "train.micro_sequences=2", "parallel.receive_budget=0.6"})
            overrides.emplace_back(one);
        setup = tiny_run(overrides);
        run.config = setup.config;
        run.spec = setup.spec;
        run.last_step = 4;
        run.batches = [this](i64 step, i64 first, i64 count, WindowBuffer windows) {
            setup.dataset->training_batch(static_cast<u64>(setup.config.run.seed), step,
                                          setup.config.train.batch_sequences, first, count, windows);
        };
    }
    [[nodiscard]] TrainingOutcome on(int world, int expert_parallel, bool recompute = false) {
        run.world = world;
        run.options.expert_parallel = expert_parallel;
        run.spec.recompute = recompute;
        return train(run);
    }
    RunSetup setup;
    TrainingRun run;
};

/// All that a layout must not change; the last bits of summed gradients may.
void expect_same_course(const TrainingOutcome& got, const TrainingOutcome& want) {
    ASSERT_EQ(got.steps.size(), want.steps.size());
    EXPECT_EQ(got.steps[0].sequence_loss, want.steps[0].sequence_loss);
    for (std::size_t i = 0; i < want.steps.size(); ++i) {
        EXPECT_EQ(got.steps[i].expert_counts, want.steps[i].expert_counts) << "step " << i + 1;
        EXPECT_NEAR(got.steps[i].loss, want.steps[i].loss, 2e-6 * want.steps[i].loss) << "step " << i + 1;
        EXPECT_NEAR(got.steps[i].loss_aux, want.steps[i].loss_aux, 1e-5) << "step " << i + 1;
        EXPECT_NEAR(got.steps[i].loss_z, want.steps[i].loss_z, 1e-4) << "step " << i + 1;
    }
    for (const auto& [name, values] : want.weights) {
        if (!name.ends_with("e_score_correction_bias")) continue;
        EXPECT_EQ(got.weights.at(name), values) << name;
        EXPECT_NE(values, std::vector<double>(values.size(), 0.0)) << name << " has not moved";
    }
}

TEST(RouterInvariance, EveryRouterTakesTheSameCourseOnEveryLayout) {
    const SmallTrace trace(2, 2, 8);
    for (const RouterEntry& entry : router_table()) {
        for (const RouterVariant& variant : router_variants(entry.name, trace.path())) {
            RouterRun run(variant.overrides());
            const TrainingOutcome one = run.on(1, 1);
            for (const auto& [world, expert_parallel] : {std::pair{2, 2}, {3, 1}, {4, 2}, {8, 8}}) {
                SCOPED_TRACE(
                    fmt::format("{}: {} ranks, {} expert-parallel", variant.name(), world, expert_parallel));
                expect_same_course(run.on(world, expert_parallel), one);
            }
        }
    }
}

TEST(RouterInvariance, RecomputationChangesNoBitOfAnyRouter) {
    const SmallTrace trace(2, 2, 8);
    for (const RouterEntry& entry : router_table()) {
        const RouterVariant variant = router_variants(entry.name, trace.path()).back();
        SCOPED_TRACE(variant.name());
        RouterRun run(variant.overrides());
        expect_same_bits(run.on(2, 2, true), run.on(2, 2, false));
    }
}

/// The counts of scope `global` come from a pass of their own, which has to draw the same noise.
TEST(RouterInvariance, APassForGlobalCountsRoutesAsTheOneThatTrains) {
    for (RouterVariant variant :
         {RouterVariant{"noisy_top_k", 2, {}}, RouterVariant{"switch", 1, {"jitter=0.3"}},
          RouterVariant{"sinkhorn", 2, {}}}) {
        SCOPED_TRACE(variant.name());
        std::vector<std::string> overrides = variant.overrides();
        overrides.push_back("model.moe.balance.scope=global");
        RouterRun run(overrides);
        const TrainingOutcome one = run.on(1, 1);
        expect_same_course(run.on(4, 2), one);
        // At scope global the loss is E/(k N^2) sum over experts of count * sum of p: with the counts of the
        // pass that trains it is this, and only with them.
        run.run.last_step = 1;
        run.run.config.train.batch_sequences = 2;  // one micro-batch: scope micro measures the same tokens
        const TrainingOutcome global = run.on(1, 1);
        run.run.spec.balance.scope = BalanceScope::micro;
        const TrainingOutcome micro = run.on(1, 1);
        EXPECT_EQ(global.steps[0].expert_counts, micro.steps[0].expert_counts);
        EXPECT_NEAR(global.steps[0].loss_aux, micro.steps[0].loss_aux, 1e-12);
    }
}

}  // namespace
}  // namespace moesaic
