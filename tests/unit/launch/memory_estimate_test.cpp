// What the dry run says against what the same training really takes.
#include "launch/memory_estimate.h"

#include <gtest/gtest.h>

#include <mutex>

#include "comm/thread_communicator.h"
#include "launch/evaluation.h"
#include "launch/training_step.h"
#include "tests/support/tiny_run.h"

namespace moesaic {
namespace {

struct Layout {
    int world = 1, expert_parallel = 1;
};

/// Evaluates, gathers the optimizer's state and trains three steps; the largest rank's `memory_bytes`.
i64 measured_bytes(const RunSetup& run, Layout layout) {
    i64 largest = 0;
    std::mutex mutex;
    const auto body = [&](Communicator& world) {
        RuntimeOptions options;
        options.expert_parallel = layout.expert_parallel;
        RankRuntime runtime(run.config, run.spec, world, options);
        TrainingStep training(runtime, run.config, *run.dataset);
        (void)evaluate_windows(runtime, run, heldout_windows(run), true);
        StepContext context = runtime.context(Phase::train, 0);
        runtime.optimizer->visit_state(context, [](const Parameter&, const ParameterState&) {});
        for (const i64 step : {1, 2, 3}) {
            training.update(step, training.forward_backward(step).grad_norm);
        }
        const std::lock_guard lock(mutex);
        largest = std::max(largest, runtime.backend->pool().bytes_reserved() +
                                        runtime.mesh->reserved_bytes() + runtime.mesh->shared_bytes());
    };
    run_ranks(layout.world, body, 120);
    return largest;
}

using Overrides = std::vector<std::string>;

/// Wide enough that rows, not bookkeeping, make the figures.
RunSetup wide_run(const Overrides& overrides) {
    Overrides all{"task.data.seq_len=64",
                  "model.width=64",
                  "model.moe.hidden=96",
                  "model.layers=3",
                  "train.batch_sequences=11",
                  "train.micro_sequences=2",
                  "generalization.heldout_sequences=9",
                  "parallel.exchange=flat"};  // auto takes what is fastest at that moment
    all.insert(all.end(), overrides.begin(), overrides.end());
    return tiny_run(all);
}

/// Ten percent are promised; what differs is routing, which decides the number of rounds.
constexpr double kTolerance = 0.03;

void expect_foretold(const Overrides& overrides, const std::vector<Layout>& layouts,
                     double tolerance = kTolerance) {
    const RunSetup run = wide_run(overrides);
    for (const Layout layout : layouts) {
        const auto measured = static_cast<double>(measured_bytes(run, layout));
        const auto estimate =
            static_cast<double>(estimate_memory(run, layout.world, layout.expert_parallel).pool_bytes());
        std::string text;
        for (const std::string& one : overrides) text += " " + one;
        EXPECT_NEAR(estimate, measured, tolerance * measured)
            << layout.world << " ranks, expert-parallel " << layout.expert_parallel << text;
        ::testing::Test::RecordProperty(
            fmt::format("ratio_{}_{}{}", layout.world, layout.expert_parallel, text),
            fmt::format("{:.3f}", estimate / measured));
    }
}

const std::vector<Layout> kAllSizes{{1, 1}, {2, 1}, {2, 2}, {4, 2}, {4, 4}, {8, 4}, {8, 8}};

TEST(MemoryEstimate, HoldsOnEveryLayout) {
    expect_foretold({}, kAllSizes);
}

TEST(MemoryEstimate, HoldsInBf16) {
    expect_foretold({"train.precision=bf16"}, kAllSizes);
}

TEST(MemoryEstimate, HoldsInDoublePrecision) {
    expect_foretold({"train.precision=fp64"}, {{1, 1}, {4, 2}});
}

TEST(MemoryEstimate, HoldsWithRecomputation) {
    for (const char* precision : {"train.precision=fp32", "train.precision=bf16"}) {
        expect_foretold({"train.recompute=layer", precision}, {{1, 1}, {2, 2}, {4, 4}});
    }
}

TEST(MemoryEstimate, HoldsForRowsInSharedMemory) {
    const std::string exchange = "parallel.exchange=shared_memory";
    expect_foretold({exchange}, kAllSizes);
    expect_foretold({exchange, "train.recompute=layer", "train.precision=bf16"}, {{1, 1}, {4, 4}});
}

TEST(MemoryEstimate, HoldsForChunks) {
    for (const char* exchange : {"parallel.exchange=flat", "parallel.exchange=shared_memory"})
        expect_foretold({"parallel.chunks=3", exchange}, {{2, 2}, {4, 4}});
}

TEST(MemoryEstimate, HoldsForOtherShapes) {
    const std::vector<Layout> layouts{{1, 1}, {2, 2}, {4, 2}};
    expect_foretold({"model.heads=8", "model.kv_heads=2", "model.qk_norm=head"}, layouts);
    expect_foretold({"model.moe.every=2", "model.dense_hidden=200"}, layouts);
    expect_foretold({"model.clip_qkv=4", "model.tie_embeddings=true"}, layouts);
    expect_foretold({"model.moe.top_k=4", "parallel.zero=0"}, layouts);
    expect_foretold({"model.moe.activation=gelu", "model.moe.every=2"}, layouts);
    expect_foretold({"model.moe.activation=prelu", "train.precision=bf16"}, layouts);
    expect_foretold({"model.moe.shared_experts=2", "model.moe.shared_gate=true"}, layouts);
}

/// Rows travel in many rounds whatever the routing is, and rows are most of the memory.
TEST(MemoryEstimate, HoldsForSmallReceiveBudgets) {
    const Overrides many_rounds{"parallel.receive_budget=0.1", "model.moe.hidden=16",
                                "task.data.seq_len=256",       "train.micro_sequences=4",
                                "train.batch_sequences=9",     "generalization.heldout_sequences=4"};
    expect_foretold(many_rounds, {{1, 1}, {2, 2}, {4, 4}});
    Overrides recomputing = many_rounds;
    recomputing.insert(recomputing.end(), {"train.recompute=layer", "train.precision=bf16"});
    expect_foretold(recomputing, {{1, 1}, {4, 2}});
}

/// Forced traffic with all tokens at one rank is the worst that there is; drawn by Zipf's law it lies
/// between. One layer, so that what later rounds take is not hidden behind what other layers keep.
TEST(MemoryEstimate, BoundsWhatUnevenRoutingTakes) {
    constexpr Layout kLayout{4, 4};
    const auto run_with = [](const std::string& traffic, const std::string& exchange) {
        return wide_run({"model.moe.router=uniform", "model.moe.router.traffic=" + traffic,
                         "parallel.exchange=" + exchange, "parallel.receive_budget=1.2", "model.layers=1",
                         "model.moe.hidden=384", "task.data.seq_len=128"});
    };
    for (const std::string exchange : {"flat", "shared_memory"}) {
        const RunSetup worst = run_with("hot_rank:1,ranks=4", exchange);
        const auto foretold = [&](AssumedRouting routing) {
            return static_cast<double>(
                estimate_memory(worst, kLayout.world, kLayout.expert_parallel, 0, routing).pool_bytes());
        };
        const double even = foretold(AssumedRouting::even), most = foretold(AssumedRouting::hot_rank);
        const auto measured = static_cast<double>(measured_bytes(worst, kLayout));
        EXPECT_NEAR(most, measured, kTolerance * measured) << exchange;
        EXPECT_GT(most, 1.02 * even) << "there is nothing to foretell";
        const auto zipf = static_cast<double>(measured_bytes(run_with("zipf:2", exchange), kLayout));
        EXPECT_LE(zipf, (1 + kTolerance) * most) << exchange;
        ::testing::Test::RecordProperty(
            exchange, fmt::format("even {:.3f}, worst {:.3f} of what the worst takes", even / measured,
                                  most / measured));
    }
}

/// Exchanges by nodes hold rows of other ranks on their way.
TEST(MemoryEstimate, HoldsForExchangesByNodes) {
    for (const char* kind : {"parallel.exchange=hierarchical", "parallel.exchange=dedup"}) {
        expect_foretold({kind, "parallel.ranks_per_node=2"}, {{4, 2}, {4, 4}, {8, 8}});
        expect_foretold({kind, "parallel.ranks_per_node=1", "model.moe.top_k=4"}, {{2, 2}, {4, 4}});
    }
    expect_foretold({"parallel.exchange=dedup", "parallel.dedup_reduce=node", "parallel.ranks_per_node=2"},
                    {{4, 4}, {8, 8}});
    expect_foretold({"parallel.wire=bf16"}, {{2, 2}, {4, 4}});
}

/// Experts move in memory that is there, after each of the steps.
TEST(MemoryEstimate, HoldsWhileExpertsMove) {
    for (const char* precision : {"train.precision=fp32", "train.precision=bf16"})
        expect_foretold({precision, "parallel.placement=load_aware", "parallel.placement.every=1",
                         "parallel.placement.min_gain=0"},
                        {{2, 2}, {4, 2}, {4, 4}});
}

TEST(MemoryEstimate, HoldsForSlicedExperts) {
    const std::string two = "parallel.expert_tensor=2";
    expect_foretold({two}, {{2, 1}, {4, 1}, {4, 2}, {8, 4}});
    expect_foretold({two, "train.precision=bf16", "train.recompute=layer"}, {{4, 2}});
    expect_foretold({two, "parallel.exchange=dedup", "parallel.ranks_per_node=2"}, {{4, 2}, {8, 4}});
    expect_foretold({"parallel.expert_tensor=4", "model.moe.activation=prelu"}, {{4, 1}, {8, 2}});
}

/// Places for copies are there from the start; on their way are as many as are in use, which is decided
/// later.
TEST(MemoryEstimate, HoldsWhileExpertsAreCopied) {
    expect_foretold({"parallel.placement=load_aware", "parallel.placement.every=1",
                     "parallel.placement.min_gain=0", "parallel.placement.copies=2"},
                    {{1, 1}, {2, 2}, {4, 2}, {4, 4}}, 0.1);
}

/// A model that no machine of tests could hold costs the dry run nothing.
TEST(MemoryEstimate, TakesNoMemoryItself) {
    RunSetup run =
        wide_run({"model.width=4096", "model.layers=32", "model.moe.hidden=14336", "model.heads=32",
                  "model.kv_heads=8", "task.data.seq_len=2048", "train.batch_sequences=64"});
    const i64 before = resident_bytes();
    const MemoryEstimate memory = estimate_memory(run, 8, 8);
    EXPECT_GT(memory.pool_bytes(), i64{100} << 30);
    // Next to nothing, the shadow that a sanitizer keeps of it included.
    EXPECT_LT(resident_bytes() - before, memory.pool_bytes() / 256);
}

TEST(MemoryEstimate, SaysWhatBf16AndRecomputationSave) {
    const auto estimate = [](const Overrides& overrides) {
        return estimate_memory(wide_run(overrides), 2, 2);
    };
    const auto of = [](const MemoryEstimate& memory, MemoryUse use) {
        return memory.by_use[static_cast<std::size_t>(use)];
    };
    const MemoryEstimate plain = estimate({}), narrow = estimate({"train.precision=bf16"});
    const MemoryEstimate recomputed = estimate({"train.recompute=layer"});
    EXPECT_LE(of(narrow, MemoryUse::weights), 0.6 * static_cast<double>(of(plain, MemoryUse::weights)));
    EXPECT_GT(of(narrow, MemoryUse::masters), 0);
    EXPECT_EQ(of(plain, MemoryUse::masters), 0);
    // About half of the activations have the parameters' type, the rest is f32 in both.
    EXPECT_LT(of(narrow, MemoryUse::activations),
              0.75 * static_cast<double>(of(plain, MemoryUse::activations)));
    EXPECT_LT(of(recomputed, MemoryUse::activations),
              0.8 * static_cast<double>(of(plain, MemoryUse::activations)));
}

}  // namespace
}  // namespace moesaic
