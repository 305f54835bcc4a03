// Whole trainings on every layout, ranks as threads: the same numbers, the same bits, and nothing allocated.
#include <unistd.h>

#include <filesystem>

#include "launch/checkpointer.h"
#include "runtime/base/worse.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "tests/support/uneven_training.h"

namespace moesaic {
namespace {

std::string name_of(Layout layout) {
    return fmt::format("{} ranks, expert-parallel {}", layout.world, layout.expert_parallel);
}

/// Every expert-parallel size of 1, 2, 4 and 8 ranks; eight experts.
std::vector<Layout> all_layouts() {
    std::vector<Layout> layouts;
    for (const int world : {1, 2, 4, 8}) {
        for (int expert_parallel = 1; expert_parallel <= world; expert_parallel *= 2) {
            layouts.push_back({world, expert_parallel});
        }
    }
    return layouts;
}

class TrainingInvariance : public UnevenTraining {
  protected:
    void compare_layouts(DType dtype, double tolerance, const std::vector<std::string>& overrides = {}) {
        const TrainingRun run = training_run(dtype, overrides);
        const TrainingOutcome one = train_on(run, {1, 1});
        double worst = 0;
        for (const Layout layout : all_layouts()) {
            SCOPED_TRACE(name_of(layout));
            const TrainingOutcome outcome = train_on(run, layout);
            EXPECT_EQ(outcome.steps[0].sequence_loss, one.steps[0].sequence_loss);
            EXPECT_EQ(outcome.steps[0].loss, one.steps[0].loss);
            EXPECT_EQ(outcome.steps[0].expert_counts, one.steps[0].expert_counts);
            EXPECT_EQ(outcome.steps[0].routers, one.steps[0].routers);
            ASSERT_EQ(outcome.steps.size(), one.steps.size());
            for (std::size_t i = 0; i < one.steps.size(); ++i) {
                const double difference =
                    std::abs(outcome.steps[i].loss - one.steps[i].loss) / one.steps[i].loss;
                EXPECT_LE(difference, tolerance) << "step " << i + 1;
                worst = worse(worst, difference);
            }
        }
        RecordProperty("worst_loss", fmt::format("{:.1e}", worst));
    }
};

TEST_F(TrainingInvariance, SinglePrecision) {
    compare_layouts(DType::f32, 2e-6);
}

TEST_F(TrainingInvariance, DoublePrecision) {
    compare_layouts(DType::f64, 1e-10);
}

TEST_F(TrainingInvariance, Bfloat16) {
    compare_layouts(DType::bf16, 1e-5);
}

TEST_F(TrainingInvariance, SharedExperts) {
    const std::vector<std::string> shared{"model.moe.shared_experts=2", "model.moe.shared_gate=true"};
    compare_layouts(DType::f32, 2e-6, shared);
    TrainingRun run = training_run(DType::bf16, shared);
    run.last_step = 3;
    for (const Layout layout : {Layout{1, 1}, {4, 2}}) {
        run.spec.recompute = false;
        const TrainingOutcome keeping = train_on(run, layout);
        EXPECT_TRUE(keeping.weights.contains("model.layers.0.mlp.shared_expert_gate.weight"));
        run.spec.recompute = true;
        expect_same_bits(train_on(run, layout), keeping);
    }
}

/// Ten steps by way of every exchange, several rounds each.
TEST_F(TrainingInvariance, ExchangesTrainToTheSameBits) {
    for (const auto& [world, per_node] : {std::pair{4, 2}, {4, 1}, {8, 2}}) {
        const std::string nodes = fmt::format("parallel.ranks_per_node={}", per_node);
        const auto losses = [&, ranks = world](DType dtype, const std::vector<std::string>& overrides) {
            std::vector<std::string> all{nodes};
            all.insert(all.end(), overrides.begin(), overrides.end());
            std::vector<double> all_losses;
            for (const StepResult& step : train_on(training_run(dtype, all), {ranks, ranks}).steps)
                all_losses.push_back(step.loss);
            return all_losses;
        };
        for (const DType dtype : {DType::f32, DType::bf16}) {
            SCOPED_TRACE(testing::Message() << world << " ranks, " << nodes << ", " << name_of(dtype));
            const std::vector<double> flat = losses(dtype, {"parallel.exchange=flat"});
            EXPECT_EQ(losses(dtype, {"parallel.exchange=hierarchical"}), flat);
            EXPECT_EQ(losses(dtype, {"parallel.exchange=dedup"}), flat);
            EXPECT_EQ(losses(dtype, {"parallel.exchange=auto"}), flat);
        }
        const std::vector<double> flat = losses(DType::f32, {"parallel.exchange=flat"});
        const std::vector<std::string> on_node{"parallel.exchange=dedup", "parallel.dedup_reduce=node"};
        const std::vector<double> reduced = losses(DType::f32, on_node);
        EXPECT_EQ(losses(DType::f32, on_node), reduced);
        EXPECT_NE(reduced, flat);
        ASSERT_EQ(reduced.size(), flat.size());
        for (std::size_t i = 0; i < flat.size(); ++i) EXPECT_NEAR(reduced[i], flat[i], 1e-6 * flat[i]);
    }
}

/// Half the bytes between ranks, and nearly the course of an fp32 run.
TEST_F(TrainingInvariance, Bf16OnTheWireOfASinglePrecisionRun) {
    const auto run_with = [&](const std::string& wire, i64& bytes) {
        TrainingRun run = training_run(
            DType::f32, {"parallel.exchange=flat", "parallel.wire=" + wire, "model.moe.top_k=8"});
        run.after = [&bytes](RankRuntime& runtime) {
            if (runtime.mesh->world().rank() == 0)
                bytes = runtime.mesh->world().ledger().of_rows().to_others();
        };
        return train_on(run, {2, 2});
    };
    i64 wide_bytes = 0, narrow_bytes = 0;
    const TrainingOutcome wide = run_with("fp32", wide_bytes), narrow = run_with("bf16", narrow_bytes);
    EXPECT_EQ(2 * narrow_bytes, wide_bytes);
    EXPECT_NE(narrow.steps[0].loss, wide.steps[0].loss);
    for (std::size_t i = 0; i < wide.steps.size(); ++i)
        EXPECT_NEAR(narrow.steps[i].loss, wide.steps[i].loss, 0.01) << "step " << i + 1;
}

/// A bf16 run takes nearly the course of an f32 run, with half the bytes between ranks: all experts are
/// chosen, so that both send as many rows.
TEST_F(TrainingInvariance, Bfloat16FollowsSinglePrecision) {
    const auto run_in = [&](DType dtype, i64& bytes) {
        TrainingRun run = training_run(dtype, {"model.moe.top_k=8", "optimizer.schedule.warmup=2"});
        const auto count = [&bytes](RankRuntime& runtime, i64 sign) {
            if (runtime.mesh->world().rank() != 0) return;
            bytes += sign * runtime.mesh->world().ledger().of_rows().to_others();
        };
        run.before = [count](RankRuntime& runtime) { count(runtime, -1); };  // what start-up tried
        run.after = [count](RankRuntime& runtime) { count(runtime, 1); };
        return train_on(run, {2, 2});
    };
    i64 wide_bytes = 0, narrow_bytes = 0;
    const TrainingOutcome wide = run_in(DType::f32, wide_bytes), narrow = run_in(DType::bf16, narrow_bytes);
    ASSERT_EQ(wide.steps.size(), narrow.steps.size());
    EXPECT_LT(wide.steps.back().loss, wide.steps.front().loss - 0.3);
    for (std::size_t i = 0; i < wide.steps.size(); ++i) {
        EXPECT_NEAR(narrow.steps[i].loss, wide.steps[i].loss, 0.01) << "step " << i + 1;
        EXPECT_NE(narrow.steps[i].loss, wide.steps[i].loss) << "step " << i + 1;
    }
    EXPECT_GT(narrow_bytes, 0);
    EXPECT_EQ(2 * narrow_bytes, wide_bytes);
}

TEST_F(TrainingInvariance, RepeatsItsBits) {
    const TrainingRun run = training_run(DType::f32);
    for (const Layout layout : {Layout{1, 1}, {2, 1}, {4, 2}, {4, 4}, {8, 2}}) {
        SCOPED_TRACE(name_of(layout));
        expect_same_bits(train_on(run, layout), train_on(run, layout));
    }
}

/// A missing wait between streams shows as other numbers in at least one of the shuffles.
TEST_F(TrainingInvariance, DeferredStreamsGiveTheSameBits) {
    TrainingRun run = training_run(DType::f32);
    run.last_step = 3;
    for (const Layout layout : {Layout{1, 1}, {2, 2}, {4, 2}}) {
        // Four ranks also widen and recompute.
        run.options.dtype = layout.world == 4 ? DType::bf16 : DType::f32;
        run.spec.recompute = layout.world == 4;
        run.options.stream_mode = StreamMode::inline_execution;
        const TrainingOutcome inline_outcome = train_on(run, layout);
        run.options.stream_mode = StreamMode::deferred_shuffled;
        for (u64 seed = 1; seed <= 5; ++seed) {
            SCOPED_TRACE(fmt::format("{}, shuffle {}", name_of(layout), seed));
            run.options.shuffle_seed = 100 * seed;
            expect_same_bits(train_on(run, layout), inline_outcome);
        }
    }
}

TEST_F(TrainingInvariance, ThreadsOfARankGiveTheSameBits) {
    TrainingRun run = training_run(DType::f32);
    for (const Layout layout : {Layout{1, 1}, {2, 2}}) {
        SCOPED_TRACE(name_of(layout));
        run.options.threads = 1;
        const TrainingOutcome one = train_on(run, layout);
        run.options.threads = 3;
        expect_same_bits(train_on(run, layout), one);
    }
}

/// Tokens choose experts unevenly, and differently at every step; all rows fit into one round.
TEST_F(TrainingInvariance, NothingIsAllocatedAfterWarmUp) {
    const auto expect_none = [&](const std::vector<std::string>& overrides, Layout layout) {
        SCOPED_TRACE(name_of(layout) + ", " + testing::PrintToString(overrides));
        std::vector<std::string> all{"train.steps=30", "parallel.receive_budget=8"};
        all.insert(all.end(), overrides.begin(), overrides.end());
        TrainingRun run = training_run(DType::f32, all);
        run.last_step = 30;
        for (const std::vector<i64>& rank : train_on(run, layout).allocations) {
            EXPECT_GT(rank[2], 0);
            for (std::size_t i = 3; i < rank.size(); ++i) EXPECT_EQ(rank[i], rank[2]) << "step " << i + 1;
        }
    };
    for (const Layout layout : {Layout{1, 1}, {4, 2}, {4, 4}}) expect_none({}, layout);
    for (const Layout layout : {Layout{1, 1}, {4, 2}, {4, 4}})
        expect_none({"parallel.exchange=shared_memory"}, layout);
    const std::string nodes = "parallel.ranks_per_node=2";
    expect_none({nodes, "parallel.exchange=hierarchical"}, {4, 4});
    expect_none({nodes, "parallel.exchange=dedup", "parallel.wire=bf16"}, {4, 4});
    expect_none({nodes, "parallel.exchange=dedup", "parallel.dedup_reduce=node"}, {4, 4});
}

/// Beside the pool too. A rank that ends step 4 knows that all have ended step 3, and none ends the last step
/// before it has ended the one before. Large enough that a list of a micro-batch's choices would count.
TEST_F(TrainingInvariance, NothingLargeIsNewAfterWarmUp) {
    if (large_news() < 0) GTEST_SKIP() << "a sanitizer has operator new";
    const auto expect_none = [&](const std::vector<std::string>& overrides, Layout layout) {
        SCOPED_TRACE(name_of(layout) + ", " + testing::PrintToString(overrides));
        std::vector<std::string> all{"task.data.seq_len=512",   "train.batch_sequences=16",
                                     "train.micro_sequences=8", "parallel.receive_budget=8",
                                     "train.steps=8",           "parallel.exchange=flat"};
        all.insert(all.end(), overrides.begin(), overrides.end());
        TrainingRun run = training_run(DType::f32, all);
        run.last_step = 8;
        for (const std::vector<i64>& rank : train_on(run, layout).large_news) EXPECT_EQ(rank[6], rank[3]);
    };
    expect_none({"model.moe.experts=0"}, {1, 1});
    for (const Layout layout : {Layout{1, 1}, {2, 2}}) expect_none({}, layout);
    expect_none({"parallel.exchange=shared_memory"}, {2, 2});
    expect_none({"parallel.chunks=3"}, {2, 2});
    EXPECT_GT(large_news(), 0);  // of the warm-up
}

/// In one round and in several, on inline and on deferred streams.
TEST_F(TrainingInvariance, RowsInSharedMemoryChangeNoBit) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const char* budget : {"parallel.receive_budget=0.6", "parallel.receive_budget=8"}) {
            TrainingRun run = training_run(dtype, {"model.layers=3", budget});
            run.last_step = 4;
            const TrainingOutcome flat = train_on(run, {1, 1});
            run.spec.exchange.name = "shared_memory";
            for (const Layout layout : {Layout{1, 1}, {2, 2}, {4, 2}, {4, 4}, {8, 8}}) {
                SCOPED_TRACE(fmt::format("{}, {}, {}", name_of(dtype), budget, name_of(layout)));
                expect_same_bits(train_on(run, layout), flat);
            }
            run.spec.recompute = true;
            run.options.stream_mode = StreamMode::deferred_shuffled;
            for (const Layout layout : {Layout{2, 2}, {4, 4}}) {
                SCOPED_TRACE(fmt::format("{}, {}, {}, deferred", name_of(dtype), budget, name_of(layout)));
                expect_same_bits(train_on(run, layout), flat);
            }
        }
    }
}

/// Rows travel in parts while experts compute on others; some rounds are received again in the backward.
TEST_F(TrainingInvariance, ChunksThatOverlapChangeNoBit) {
    for (const char* exchange : {"flat", "shared_memory"}) {
        TrainingRun run = training_run(DType::f32, {"model.layers=3", "parallel.receive_budget=1.3"});
        run.last_step = 3;
        const TrainingOutcome one = train_on(run, {1, 1});
        run.spec.exchange.name = exchange;
        for (const i64 chunks : {2, 5}) {
            run.spec.chunks = chunks;
            run.spec.receive_budget = chunks == 2 ? 1.3 : 0.2;  // more parts than a rank has experts
            for (const Layout layout : {Layout{1, 1}, {2, 2}, {4, 2}, {8, 8}}) {
                SCOPED_TRACE(fmt::format("{}, {} chunks, {}", exchange, chunks, name_of(layout)));
                expect_same_bits(train_on(run, layout), one);
            }
            run.spec.recompute = true;
            run.options.stream_mode = StreamMode::deferred_shuffled;
            SCOPED_TRACE(fmt::format("{}, {} chunks, deferred", exchange, chunks));
            expect_same_bits(train_on(run, {4, 2}), one);
            run.options.stream_mode = StreamMode::inline_execution;
            run.spec.recompute = false;
        }
    }
}

/// One block with experts, one without; exchanges in chunks. What is kept instead is less memory.
TEST_F(TrainingInvariance, RecomputationChangesNoBit) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        TrainingRun run = training_run(dtype, {"model.layers=4", "model.moe.every=2"});
        run.last_step = 4;
        for (const Layout layout : {Layout{1, 1}, {2, 2}, {4, 2}, {8, 8}}) {
            SCOPED_TRACE(fmt::format("{}, {}", name_of(dtype), name_of(layout)));
            i64 peak = 0;
            run.after = [&peak](RankRuntime& runtime) {
                if (runtime.mesh->world().rank() == 0) peak = runtime.backend->pool().peak_bytes_in_use();
            };
            run.spec.recompute = false;
            const TrainingOutcome keeping = train_on(run, layout);
            const i64 peak_keeping = peak;
            run.spec.recompute = true;
            expect_same_bits(train_on(run, layout), keeping);
            EXPECT_LT(peak, peak_keeping);
        }
    }
}

class TrainingCheckpoints : public TrainingInvariance {
  protected:
    void SetUp() override {
        folder_ = std::filesystem::temp_directory_path() /
                  fmt::format("moesaic-{}-{}", ::testing::UnitTest::GetInstance()->random_seed(), getpid());
        std::filesystem::create_directories(folder_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    /// Trains up to step 5 and saves.
    [[nodiscard]] TrainingOutcome train_and_save(TrainingRun run, Layout layout) {
        run.last_step = 5;
        run.after = [&](RankRuntime& runtime) {
            (void)save_checkpoint(runtime, folder_.string(), {5, 5 * 11 * run.spec.seq_len}, run.config);
        };
        return train_on(run, layout);
    }
    /// Goes on from step 6; trains nothing with `last_step` 5.
    [[nodiscard]] TrainingOutcome load_and_train(TrainingRun run, Layout layout, i64 last_step) {
        run.first_step = 6;
        run.last_step = last_step;
        run.before = [&](RankRuntime& runtime) {
            const std::string checkpoint = checkpoints_folder(folder_.string()) + "/" + step_folder_name(5);
            const TrainingPosition position = load_checkpoint(runtime, checkpoint, true);
            EXPECT_EQ(position.step, 5);
            EXPECT_EQ(position.tokens, 5 * 11 * run.spec.seq_len);
        };
        return train_on(run, layout);
    }

  private:
    std::filesystem::path folder_;
};

TEST_F(TrainingCheckpoints, AnyLayoutReadsWhatAnotherWrote) {
    const TrainingRun run =
        training_run(DType::f32, {"model.moe.shared_experts=1", "model.moe.shared_gate=true"});
    const TrainingOutcome saved = train_and_save(run, {4, 2});
    ASSERT_EQ(saved.moments.size(), 2 * saved.weights.size());
    for (const Layout layout : {Layout{1, 1}, {2, 2}, {4, 2}, {8, 1}, {8, 4}, {8, 8}}) {
        SCOPED_TRACE(name_of(layout));
        const TrainingOutcome loaded = load_and_train(run, layout, 5);
        EXPECT_TRUE(loaded.weights == saved.weights);
        EXPECT_TRUE(loaded.moments == saved.moments);
    }
}

TEST_F(TrainingCheckpoints, ResumedTrainingGoesOnExactly) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        SCOPED_TRACE(name_of(dtype));
        const TrainingRun run = training_run(dtype);
        const TrainingOutcome straight = train_on(run, {4, 2});
        (void)train_and_save(run, {4, 2});
        const TrainingOutcome resumed = load_and_train(run, {4, 2}, 10);
        EXPECT_TRUE(resumed.weights == straight.weights);
        EXPECT_TRUE(resumed.moments == straight.moments);
        for (std::size_t i = 0; i < 5; ++i) {
            EXPECT_TRUE(same_bits(resumed.steps[i], straight.steps[5 + i])) << "step " << 6 + i;
        }
        const TrainingOutcome elsewhere = load_and_train(run, {2, 1}, 10);
        for (std::size_t i = 0; i < 5; ++i) {
            const double want = straight.steps[5 + i].loss;
            EXPECT_LE(std::abs(elsewhere.steps[i].loss - want), 1e-5 * want) << "step " << 6 + i;
        }
    }
}

/// The file of a bf16 run holds what it rounds its weights from, so that precision may change on the way.
TEST_F(TrainingCheckpoints, PrecisionMayChange) {
    const TrainingOutcome narrow = train_and_save(training_run(DType::bf16), {4, 2});
    const TrainingOutcome wide = load_and_train(training_run(DType::f32), {2, 2}, 5);
    for (const auto& [name, values] : wide.weights) {
        EXPECT_TRUE(values == narrow.moments.at(name + " master")) << name;
        EXPECT_TRUE(wide.moments.at(name + " second") == narrow.moments.at(name + " second")) << name;
        for (std::size_t i = 0; i < values.size(); ++i) {
            ASSERT_EQ(narrow.weights.at(name)[i], static_cast<double>(widened(to_bfloat16(values[i]))))
                << name;
        }
    }
    const TrainingOutcome again = load_and_train(training_run(DType::bf16), {8, 4}, 5);
    EXPECT_TRUE(again.weights == narrow.weights);
    EXPECT_TRUE(again.moments == narrow.moments);
    (void)load_and_train(training_run(DType::f64), {1, 1}, 6);
}

}  // namespace
}  // namespace moesaic
