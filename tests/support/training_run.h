// A whole training with ranks as threads on the product's own path, and everything that it leaves behind.
#pragma once

#include <gtest/gtest.h>

#include <mutex>

#include "comm/expert_slices.h"
#include "comm/thread_communicator.h"
#include "launch/logical_gradients.h"
#include "launch/training_step.h"
#include "runtime/base/run_context.h"
#include "runtime/bfloat16.h"
#include "tests/support/large_news.h"

namespace moesaic {

struct TrainingRun {
    Config config;
    ModelSpec spec;
    BatchSource batches;
    int world = 1;
    RuntimeOptions options;
    i64 first_step = 1, last_step = 10;
    /// Collective over the world, before the first step (to put weights) and after the last.
    std::function<void(RankRuntime&)> before = [](RankRuntime&) {};
    std::function<void(RankRuntime&)> after = [](RankRuntime&) {};
};

struct TrainingOutcome {
    std::vector<StepResult> steps;  ///< found to be the same bits on every rank
    LogicalTensors gradients;       ///< of the first step
    LogicalTensors weights,
        moments;  ///< in the end, masters with the moments; found to be the same bits on all replicas
    std::vector<std::vector<i64>> allocations;  ///< [ranks][steps] fresh allocations so far
    std::vector<std::vector<i64>> large_news;   ///< [ranks][steps] of all ranks so far, see large_news.h
};

[[nodiscard]] inline bool same_bits(const StepResult& a, const StepResult& b) {
    return a.loss == b.loss && a.loss_aux == b.loss_aux && a.loss_z == b.loss_z &&
           a.grad_norm == b.grad_norm && a.sequence_loss == b.sequence_loss &&
           a.expert_counts == b.expert_counts && a.routers == b.routers;
}

/// Everything that training computed is the same to the last bit.
inline void expect_same_bits(const TrainingOutcome& got, const TrainingOutcome& want) {
    ASSERT_EQ(got.steps.size(), want.steps.size());
    for (std::size_t i = 0; i < want.steps.size(); ++i) {
        EXPECT_TRUE(same_bits(got.steps[i], want.steps[i])) << "step result " << i;
    }
    EXPECT_TRUE(got.gradients == want.gradients) << "gradients";
    EXPECT_TRUE(got.weights == want.weights) << "weights";
    EXPECT_TRUE(got.moments == want.moments) << "moments";
}

namespace detail {

inline std::vector<double> host_values(ConstTensorView view) {
    if (view.dtype == DType::f64) return {view.as<double>(), view.as<double>() + view.elements()};
    if (view.dtype == DType::f32) return {view.as<float>(), view.as<float>() + view.elements()};
    std::vector<double> values;
    for (i64 i = 0; i < view.elements(); ++i) {
        values.push_back(static_cast<double>(widened(view.as<BFloat16>()[i])));
    }
    return values;
}

/// Adds a tensor that other ranks may hold as well.
inline void add_tensor(LogicalTensors& tensors, const std::string& name, ConstTensorView view) {
    std::vector<double> values = host_values(view);
    const auto known = tensors.find(name);
    if (known == tensors.end()) {
        tensors[name] = std::move(values);
    } else {
        EXPECT_TRUE(known->second == values) << name << " differs among its replicas";
    }
}

/// Collective over the world.
inline void add_state(RankRuntime& runtime, TrainingOutcome& outcome, std::mutex& mutex) {
    StepContext context = runtime.context(Phase::train, 0);
    runtime.compute->synchronize();
    const auto add = [&](LogicalTensors& tensors, const Parameter& parameter, std::string_view suffix,
                         ConstTensorView mine) {
        std::vector<std::byte> whole = whole_tensor(context, parameter, mine, "test: state");
        const std::lock_guard lock(mutex);
        add_tensor(tensors, parameter.name + std::string(suffix),
                   {{whole.data(), mine.dtype, Device::cpu, parameter.whole_shape()}});
    };
    for (const Parameter& parameter : runtime.store.parameters())
        add(outcome.weights, parameter, "", parameter.value);
    for (const Buffer& buffer : runtime.store.buffers()) {
        const std::lock_guard lock(mutex);
        add_tensor(outcome.weights, buffer.name, buffer.value);
    }
    runtime.optimizer->visit_state(context, [&](const Parameter& parameter, const ParameterState& state) {
        add(outcome.moments, parameter, " first", state.first_moment);
        add(outcome.moments, parameter, " second", state.second_moment);
        if (state.value.dtype != parameter.value.dtype)
            add(outcome.moments, parameter, " master", state.value);
    });
}

inline void train_rank(const TrainingRun& run, Communicator& world, TrainingOutcome& outcome,
                       std::vector<std::vector<StepResult>>& results, std::mutex& mutex) {
    const auto rank = static_cast<std::size_t>(world.rank());
    RankRuntime runtime(run.config, run.spec, world, run.options);
    TrainingStep training(runtime, run.config, run.batches);
    run.before(runtime);
    for (i64 step = run.first_step; step <= run.last_step; ++step) {
        run_context().step = step;
        results[rank].push_back(training.forward_backward(step));
        if (step == run.first_step) {
            LogicalTensors gradients = gather_gradients(runtime);
            if (rank == 0) outcome.gradients = std::move(gradients);
        }
        training.update(step, results[rank].back().grad_norm);
        runtime.compute->synchronize();
        outcome.allocations[rank].push_back(runtime.backend->pool().fresh_allocations());
        outcome.large_news[rank].push_back(large_news());
    }
    run.after(runtime);
    add_state(runtime, outcome, mutex);
    runtime.compute->synchronize();
    runtime.exchange->synchronize();
}

}  // namespace detail

[[nodiscard]] inline TrainingOutcome train(const TrainingRun& run) {
    TrainingOutcome outcome;
    outcome.allocations.resize(static_cast<std::size_t>(run.world));
    outcome.large_news.resize(static_cast<std::size_t>(run.world));
    std::vector<std::vector<StepResult>> results(static_cast<std::size_t>(run.world));
    std::mutex mutex;
    run_ranks(
        run.world, [&](Communicator& world) { detail::train_rank(run, world, outcome, results, mutex); },
        120);
    for (const std::vector<StepResult>& rank : results) {
        for (std::size_t i = 0; i < rank.size(); ++i) {
            EXPECT_TRUE(same_bits(rank[i], results[0][i])) << "ranks differ in step result " << i;
        }
    }
    outcome.steps = results[0];
    return outcome;
}

/// The L2 norm of the difference relative to the norm of `want`; infinite where sizes differ.
[[nodiscard]] inline double relative_l2(const std::vector<double>& got, const std::vector<double>& want) {
    if (got.size() != want.size()) return std::numeric_limits<double>::infinity();
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return difference == 0 ? 0 : std::sqrt(difference / norm);
}

}  // namespace moesaic
