// One MoE layer on 1, 2, 4 and 8 ranks: the same bits everywhere, equal to a reference without dispatch.
#include "layers/moe_layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>

#include "tests/support/balance_target.h"
#include "tests/support/layer_inputs.h"
#include "tests/support/reference_moe.h"

namespace moesaic {
namespace {

/// The global batch: what each micro-batch holds. Rank r of W computes micro-batches r, r + W, ...
struct Work {
    ModelSpec spec;
    std::vector<i64> tokens;  ///< per micro-batch, may be 0; their number is a multiple of W
    i64 seq_len = 1;
    double gate_offset = 0;  ///< added to x and to the gate's rows in proportion to 1 - e
    StreamMode mode = StreamMode::inline_execution;
};

struct Outcome {
    std::vector<std::vector<double>> y, dx;  ///< by micro-batch
    std::vector<std::size_t> rounds;
    std::vector<i64> received, dropped;     ///< by micro-batch: most rows at once on its rank; choices
    NamedValues weights, expert_gradients;  ///< by global name
    NamedValues replicated_gradients;       ///< by name, summed over ranks
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
        const Tensor y = layer.forward(rank.context, {x, work.seq_len}, saved);
        rank.compute->synchronize();
        const LayerBalanceTarget target =
            make_balance_target(rank, work.spec, saved.router.totals, {42, {}, {}, {}});
        saved.balance = target.target;
        const Tensor dx = layer.backward(rank.context, {x, work.seq_len}, dy, saved);
        store.fold_segment(*rank.compute, 0);
        const std::vector<double> y_values = rank.read<double>(y), dx_values = rank.read<double>(dx);
        const std::lock_guard lock(mutex);
        outcome.y[i] = y_values;
        outcome.dx[i] = dx_values;
        outcome.rounds[i] = saved.plan.chunks.size();
        outcome.dropped[i] = saved.router.totals.dropped;
        for (const DispatchChunk& chunk : saved.plan.chunks) {
            outcome.received[i] = std::max(outcome.received[i], chunk.received());
        }
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
            std::vector<double>& sum = outcome.replicated_gradients[parameter.name];
            sum.resize(gradient.size());
            for (std::size_t j = 0; j < gradient.size(); ++j) sum[j] += gradient[j];
        }
    }
}

Outcome run(const Work& work, int ranks) {
    Outcome outcome;
    outcome.y.resize(work.tokens.size());
    outcome.dx.resize(work.tokens.size());
    outcome.rounds.resize(work.tokens.size());
    outcome.received.resize(work.tokens.size());
    outcome.dropped.resize(work.tokens.size());
    std::mutex mutex;
    run_ranks(
        ranks, [&](Communicator& world) { run_rank(work, world, outcome, mutex); }, 60);
    return outcome;
}

void expect_same_bits(const Outcome& a, const Outcome& b) {
    EXPECT_EQ(a.y, b.y);
    EXPECT_EQ(a.dx, b.dx);
    EXPECT_EQ(a.expert_gradients, b.expert_gradients);
    ASSERT_EQ(a.replicated_gradients.size(), b.replicated_gradients.size());
    for (const auto& [name, want] : a.replicated_gradients) {
        const std::vector<double>& got = b.replicated_gradients.at(name);
        ASSERT_EQ(got.size(), want.size()) << name;
        for (std::size_t i = 0; i < want.size(); ++i)
            EXPECT_NEAR(got[i], want[i], 1e-12 * (1 + std::abs(want[i]))) << name;
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

/// N experts of width F that every token visits are one of width N*F.
TEST(MoELayer, SharedExpertsAddToTheRoutedOnes) {
    for (const bool gate : {false, true}) {
        SCOPED_TRACE(gate);
        Work work = usual_work();
        work.spec.shared_experts = 2;
        work.spec.shared_gate = gate;
        work.spec.activation = gate ? ActivationKind::prelu : ActivationKind::swiglu;
        const Outcome one = run(work, 1);
        EXPECT_EQ(one.weights.at("model.layers.0.mlp.shared_expert.up_proj.weight").size(), 2U * 6 * 8);
        EXPECT_EQ(one.weights.count("model.layers.0.mlp.shared_expert_gate.weight"), gate ? 1U : 0U);
        expect_reference(work, one);
        for (const int ranks : {2, 4, 8}) {
            for (const double budget : {0.3, 2.0}) {
                SCOPED_TRACE(fmt::format("{} ranks, budget {}", ranks, budget));
                work.spec.receive_budget = budget;
                expect_same_bits(one, run(work, ranks));
            }
        }
        work.mode = StreamMode::deferred_shuffled;
        expect_same_bits(one, run(work, 4));
    }
}

TEST(MoELayer, EqualsTheReferenceWithEveryActivation) {
    for (const ActivationEntry& entry : kActivations) {
        SCOPED_TRACE(entry.name);
        Work work = usual_work();
        work.spec.activation = entry.kind;
        const Outcome one = run(work, 1);
        expect_reference(work, one);
        EXPECT_EQ(one.weights.contains("model.layers.0.mlp.experts.7.gate_proj.weight"),
                  entry.kind == ActivationKind::swiglu);
        for (const int ranks : {2, 4, 8}) {
            work.spec.receive_budget = ranks == 4 ? 0.3 : 2.0;
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
    work.spec.shared_experts = 1;
    work.spec.shared_gate = true;
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

TEST(MoELayer, DropsTheSameOnEveryLayout) {
    for (const DropPolicy policy : {DropPolicy::probability, DropPolicy::position}) {
        for (const CapacityScope per : {CapacityScope::sequence, CapacityScope::micro}) {
            Work work = usual_work();
            work.seq_len = per == CapacityScope::sequence ? 3 : 1;
            if (per == CapacityScope::sequence) work.tokens = {9, 3, 0, 6, 3, 9, 9, 3};
            work.spec.capacity =
                CapacitySpec{.factor = 0.5, .policy = policy, .per = per, .renormalize = true};
            const Outcome one = run(work, 1);
            EXPECT_GT(std::reduce(one.dropped.begin(), one.dropped.end(), i64{0}), 20);
            for (const int ranks : {2, 4, 8}) {
                SCOPED_TRACE(ranks);
                const Outcome other = run(work, ranks);
                expect_same_bits(one, other);
                EXPECT_EQ(one.dropped, other.dropped);
            }
        }
    }
}

TEST(MoELayer, PaddingChangesNothing) {
    Work work = usual_work();
    work.spec.capacity = CapacitySpec{.factor = 0.7, .per = CapacityScope::micro};
    work.spec.receive_budget = 100;
    const Outcome plain = run(work, 1);
    work.spec.capacity->pad = true;
    for (const StreamMode mode : {StreamMode::inline_execution, StreamMode::deferred_shuffled}) {
        work.mode = mode;
        for (const int ranks : {1, 2, 4, 8}) {
            SCOPED_TRACE(ranks);
            expect_same_bits(plain, run(work, ranks));
        }
    }
}

/// One row an expert: of the tokens that all go to expert 0, one stays, and what is lost gives 0.
TEST(MoELayer, ATokenThatLosesAllAddsNothing) {
    Work work = usual_work();
    work.gate_offset = 3;
    work.spec.top_k = 1;
    work.spec.router.normalize = false;
    work.spec.balance = {.aux = 0, .z = 0};
    work.spec.capacity =
        CapacitySpec{.factor = 0.01, .policy = DropPolicy::position, .per = CapacityScope::micro};
    const Outcome outcome = run(work, 2);
    for (std::size_t i = 0; i < work.tokens.size(); ++i) {
        const auto kept = std::min<i64>(work.tokens[i], 1) * work.spec.width;
        for (const std::vector<double>* const values : {&outcome.y[i], &outcome.dx[i]}) {
            EXPECT_TRUE(
                std::all_of(values->begin(), values->begin() + kept, [](double v) { return v != 0; }));
            EXPECT_TRUE(std::all_of(values->begin() + kept, values->end(), [](double v) { return v == 0; }));
        }
        EXPECT_EQ(outcome.dropped[i], std::max<i64>(work.tokens[i] - 1, 0));
    }
}

/// Planted skew: every token of every micro-batch goes to the two experts of rank 0. No rank ever receives
/// more rows at once than the budget allows, and no bit changes.
TEST(MoELayer, ASkewedWorkloadStaysWithinTheReceiveBudget) {
    Work work = usual_work();
    work.gate_offset = 3;
    work.spec.top_k = 2;
    work.spec.receive_budget = 100;
    const Outcome unlimited = run(work, 1);
    for (const int ranks : {1, 2, 4, 8}) {
        for (const double budget : {0.2, 1.0, 1.5}) {
            SCOPED_TRACE(fmt::format("{} ranks, budget {}", ranks, budget));
            work.spec.receive_budget = budget;
            const Outcome outcome = run(work, ranks);
            // Of the mean: a full micro-batch's choices, whatever this one holds.
            const i64 most = static_cast<i64>(std::ceil(budget * 9 * 2));
            EXPECT_LE(*std::max_element(outcome.received.begin(), outcome.received.end()), most);
            if (budget == 1.0 && ranks > 1) {
                EXPECT_EQ(*std::max_element(outcome.received.begin(), outcome.received.end()), most)
                    << "the skew fills the budget";
                EXPECT_GT(*std::max_element(outcome.rounds.begin(), outcome.rounds.end()), 1U);
            }
            expect_same_bits(unlimited, outcome);
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
        EXPECT_STREQ(error.what(),
                     "model.moe.router.kind: there is no router 'psychic'; known are: top_k, noisy_top_k, "
                     "switch, sigmoid_bias, group_limited, sinkhorn, expert_choice, hash, uniform, "
                     "nearest_prototype, replay");
    }
}

/// Or, where it has one, than there are ranks.
TEST(ExchangeSizes, NoMorePartsThanARankHasExperts) {
    ModelSpec spec = usual_work().spec;  // 9 tokens, 3 of 8 experts
    spec.receive_budget = 4;
    for (const auto& [chunks, ranks, rows] : {std::tuple<i64, int, i64>{1, 1, 27},
                                              {2, 1, 14},
                                              {4, 2, 7},
                                              {5, 2, 7},
                                              {64, 4, 14},
                                              {2, 8, 14},
                                              {64, 8, 4}}) {
        spec.chunks = chunks;
        run_ranks(ranks, [&](Communicator& world) {
            RankSetup rank(world, world.size(), 8);
            const ExchangeSizes sizes = exchange_sizes(spec, rank.mesh, DType::f32);
            EXPECT_EQ(sizes.capacity_rows, rows) << chunks << " chunks, " << ranks << " ranks";
            EXPECT_EQ(sizes.parts, std::min<i64>(chunks, ranks == 8 ? 8 : 8 / ranks));
            EXPECT_EQ(sizes.look_ahead, chunks > 1);
            EXPECT_EQ(sizes.own_rows_first, chunks > 1 && ranks == 8);
        });
    }
}

}  // namespace
}  // namespace moesaic
