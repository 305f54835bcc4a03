// One MoE layer on 1, 2, 4 and 8 ranks: the same bits everywhere, equal to a reference without dispatch.
#include "layers/moe_layer.h"

#include <gtest/gtest.h>

#include <mutex>

#include "tests/support/layer_inputs.h"
#include "tests/support/reference_moe.h"

namespace moesaic {
namespace {

/// The global batch: what each micro-batch holds. Rank r of W computes micro-batches r, r + W, ...
struct Work {
    ModelSpec spec;
    std::vector<i64> tokens;  ///< per micro-batch, may be 0; their number is a multiple of W
    double gate_offset = 0;   ///< added to x and to the gate's rows in proportion to 1 - e
    StreamMode mode = StreamMode::inline_execution;
};

struct Outcome {
    std::vector<std::vector<double>> y, dx;  ///< by micro-batch
    std::vector<std::size_t> rounds;
    NamedValues weights, expert_gradients;  ///< by global name
    std::vector<double> gate_gradient;      ///< summed over ranks
};

Work usual_work() {
    Work work;
    work.spec.width = 8;
    work.spec.experts = 8;
    work.spec.top_k = 3;
    work.spec.hidden = 6;
    work.spec.init_std = 0.5;
    work.spec.seq_len = 1;
    work.spec.micro_sequences = 9;
    work.spec.balance = {.aux = 0.5, .z = 0.2, .scope = BalanceScope::micro};
    work.tokens = {9, 4, 0, 7, 1, 9, 9, 3};
    return work;
}

std::vector<double> input_of(const Work& work, std::size_t micro_batch) {
    std::vector<double> x =
        normal_values("x" + std::to_string(micro_batch), work.tokens[micro_batch] * work.spec.width);
    if (work.gate_offset != 0) {
        for (double& one : x) one = std::abs(one) + 0.1;
    }
    return x;
}

/// With an offset and positive x, expert 0 has the largest logit of every token, then expert 1, ...
void offset_gate(const Work& work, ParameterStore& store) {
    for (Parameter& parameter : store.parameters()) {
        if (parameter.name != "model.layers.0.mlp.gate.weight") continue;
        for (i64 i = 0; i < parameter.value.elements(); ++i) {
            parameter.value.as<double>()[i] -= work.gate_offset * static_cast<double>(i / work.spec.width);
        }
    }
}

void run_rank(const Work& work, Communicator& world, Outcome& outcome, std::mutex& mutex) {
    RankSetup rank(world, world.size(), static_cast<int>(work.spec.experts), {work.mode, 3});
    ParameterStore store(*rank.backend, DType::f64);
    const auto exchange = make_exchange(work.spec, rank.mesh, store.dtype());
    const MoELayer layer(work.spec, 0, rank.mesh, *exchange, store);
    store.end_segment();
    allocate_with_noise(rank, store);
    offset_gate(work, store);
    const auto ranks = static_cast<std::size_t>(world.size());
    for (std::size_t i = static_cast<std::size_t>(world.rank()); i < work.tokens.size(); i += ranks) {
        const Shape shape{work.tokens[i], work.spec.width};
        const Tensor x = upload(rank, input_of(work, i), shape);
        const Tensor dy = upload(rank, normal_values("dy" + std::to_string(i), shape.elements()), shape);
        MoELayer::Saved saved;
        saved.balance.tokens = 42;
        const Tensor y = layer.forward(rank.context, {x, 1}, saved);
        const Tensor dx = layer.backward(rank.context, {x, 1}, dy, saved);
        store.fold_segment(*rank.compute, 0);
        const std::vector<double> y_values = rank.read<double>(y), dx_values = rank.read<double>(dx);
        const std::lock_guard lock(mutex);
        outcome.y[i] = y_values;
        outcome.dx[i] = dx_values;
        outcome.rounds[i] = saved.plan.chunks.size();
    }
    store.complete_gradients(*rank.compute);
    rank.drain();
    const std::lock_guard lock(mutex);
    for (const Parameter& parameter : store.parameters()) {
        outcome.weights[parameter.name] = rank.read<double>(parameter.value);
        const std::vector<double> gradient = rank.read<double>(parameter.grad);
        if (parameter.placement == Placement::expert) {
            outcome.expert_gradients[parameter.name] = gradient;
        } else {
            outcome.gate_gradient.resize(gradient.size());
            for (std::size_t j = 0; j < gradient.size(); ++j) outcome.gate_gradient[j] += gradient[j];
        }
    }
}

Outcome run(const Work& work, int ranks) {
    Outcome outcome;
    outcome.y.resize(work.tokens.size());
    outcome.dx.resize(work.tokens.size());
    outcome.rounds.resize(work.tokens.size());
    std::mutex mutex;
    run_ranks(
        ranks, [&](Communicator& world) { run_rank(work, world, outcome, mutex); }, 60);
    return outcome;
}

void expect_same_bits(const Outcome& a, const Outcome& b) {
    EXPECT_EQ(a.y, b.y);
    EXPECT_EQ(a.dx, b.dx);
    EXPECT_EQ(a.expert_gradients, b.expert_gradients);
    ASSERT_EQ(a.gate_gradient.size(), b.gate_gradient.size());
    for (std::size_t i = 0; i < a.gate_gradient.size(); ++i) {
        EXPECT_NEAR(a.gate_gradient[i], b.gate_gradient[i], 1e-12 * (1 + std::abs(a.gate_gradient[i])));
    }
}

void expect_reference(const Work& work, const Outcome& outcome) {
    const auto width = static_cast<std::size_t>(work.spec.width);
    for (std::size_t i = 0; i < work.tokens.size(); ++i) {
        const std::vector<double> x = input_of(work, i);
        ASSERT_EQ(outcome.y[i].size(), x.size());
        for (std::size_t first = 0; first < x.size(); first += width) {
            const auto begin = x.begin() + static_cast<std::ptrdiff_t>(first);
            const std::vector<double> token(begin, begin + static_cast<std::ptrdiff_t>(width));
            const std::vector<double> want = reference_moe(work.spec, outcome.weights, token);
            for (std::size_t j = 0; j < width; ++j) {
                EXPECT_NEAR(outcome.y[i][first + j], want[j], 1e-12 * (1 + std::abs(want[j])));
            }
        }
    }
}

TEST(MoELayer, HasTheSameBitsOnEveryLayoutAndEqualsTheReference) {
    for (const bool normalize : {true, false}) {
        Work work = usual_work();
        work.spec.router.normalize = normalize;
        const Outcome one = run(work, 1);
        expect_reference(work, one);
        for (const int ranks : {2, 4, 8}) {
            SCOPED_TRACE(ranks);
            expect_same_bits(one, run(work, ranks));
        }
    }
}

TEST(MoELayer, HasTheSameBitsForEveryReceiveBudget) {
    Work work = usual_work();
    work.spec.receive_budget = 100;
    const Outcome one = run(work, 1);
    for (const int ranks : {1, 2, 4}) {
        for (const double budget : {0.05, 0.3, 1.0}) {
            SCOPED_TRACE(fmt::format("{} ranks, budget {}", ranks, budget));
            work.spec.receive_budget = budget;
            const Outcome other = run(work, ranks);
            EXPECT_GT(other.rounds[0], budget < 0.5 ? 1U : 0U);
            expect_same_bits(one, other);
        }
    }
}

TEST(MoELayer, HasTheSameBitsWhenStreamsRunInAnyOrder) {
    Work work = usual_work();
    work.spec.receive_budget = 0.3;
    const Outcome at_once = run(work, 1);
    work.mode = StreamMode::deferred_shuffled;
    for (const int ranks : {1, 2, 4}) {
        SCOPED_TRACE(ranks);
        expect_same_bits(at_once, run(work, ranks));
    }
}

TEST(MoELayer, BearsOneTokenInAll) {
    Work work = usual_work();
    work.tokens = {0, 0, 1, 0};
    const Outcome one = run(work, 1);
    expect_reference(work, one);
    for (const int ranks : {2, 4}) expect_same_bits(one, run(work, ranks));
}

TEST(MoELayer, BearsNoTokenAtAll) {
    Work work = usual_work();
    work.tokens = {0, 0};
    const Outcome outcome = run(work, 2);
    for (const auto& [name, gradient] : outcome.expert_gradients) {
        EXPECT_EQ(gradient, std::vector<double>(gradient.size(), 0.0)) << name;
    }
}

TEST(MoELayer, BearsAllTokensOnOneExpert) {
    Work work = usual_work();
    work.gate_offset = 3;
    work.spec.top_k = 1;
    work.spec.router.normalize = false;
    const Outcome one = run(work, 1);
    expect_reference(work, one);
    const std::vector<double>& idle =
        one.expert_gradients.at("model.layers.0.mlp.experts.1.gate_proj.weight");
    EXPECT_EQ(idle, std::vector<double>(idle.size(), 0.0));
    for (const int ranks : {2, 4, 8}) {
        for (const double budget : {0.5, 2.0}) {
            work.spec.receive_budget = budget;
            expect_same_bits(one, run(work, ranks));
        }
    }
}

TEST(MakeRouter, NamesTheKnownRouters) {
    ModelSpec spec;
    spec.router.kind = "psychic";
    const auto backend = make_cpu_backend(1);
    ParameterStore store(*backend, DType::f64);
    try {
        (void)make_router(spec, 0, store);
        FAIL() << "no error";
    } catch (const UserError& error) {
        EXPECT_STREQ(error.what(), "model.moe.router.kind: there is no router 'psychic'; known are: top_k");
    }
}

}  // namespace
}  // namespace moesaic
