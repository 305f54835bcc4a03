// One step's losses and summed gradients of a model on any layout, with nothing of the trainer.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <mutex>

#include "layers/model.h"
#include "tests/support/layer_inputs.h"
#include "tests/support/reference_moe.h"

namespace moesaic {

/// A global batch of sequences and how it is computed.
struct ModelStep {
    ModelSpec spec;
    std::vector<i32> tokens, targets;  ///< [sequences * seq_len]; target -1: masked
    NamedValues weights;               ///< instead of initial ones; may be empty
    int ranks = 1, expert_parallel = 1;
    StreamMode mode = StreamMode::inline_execution;
    PlantedDefects defects{};

    [[nodiscard]] i64 sequences() const { return static_cast<i64>(tokens.size()) / spec.seq_len; }
    [[nodiscard]] i64 micro_batches() const {
        return (sequences() + spec.micro_sequences - 1) / spec.micro_sequences;
    }
};

/// Of a model with two layers of four experts, top 2; sequences of 6 tokens, two a micro-batch, one target
/// masked.
inline ModelStep tiny_model_step(i64 sequences) {
    ModelStep step;
    step.spec.vocabulary = 19;
    step.spec.width = 12;
    step.spec.layers = 2;
    step.spec.heads = 4;
    step.spec.kv_heads = 2;
    step.spec.head_dim = 4;
    step.spec.qk_norm = QkNorm::head;
    step.spec.init_std = 0.3;
    step.spec.experts = 4;
    step.spec.top_k = 2;
    step.spec.hidden = 7;
    step.spec.balance = {.aux = 0.4, .z = 0.1, .scope = BalanceScope::micro};
    step.spec.seq_len = 6;
    step.spec.micro_sequences = 2;
    step.tokens = whole_values("tokens", sequences * step.spec.seq_len, step.spec.vocabulary);
    step.targets = whole_values("targets", sequences * step.spec.seq_len, step.spec.vocabulary);
    step.targets[5] = -1;
    return step;
}

struct ModelStepResult {
    std::vector<double> token_loss;    ///< [sequences * seq_len]
    std::vector<i32> token_wrong;      ///< [sequences * seq_len]
    std::vector<double> token_margin;  ///< [sequences * seq_len] in evaluation
    std::vector<double> train_margin;  ///< [sequences * seq_len] in training
    double loss = 0;
    BalanceTerms balance;
    std::vector<i64> counts;     ///< [expert layers * E]
    i64 dropped = 0;             ///< choices, of all layers
    NamedValues gradients;       ///< by name, summed over ranks in rank order
    std::vector<double> logits;  ///< [sequences * seq_len, V]
};

namespace detail {

/// Where micro-batch `index` lies in the global batch, in sequences; empty beyond the end.
inline std::pair<i64, i64> micro_batch_range(const ModelStep& step, i64 index) {
    const i64 first = std::min(index * step.spec.micro_sequences, step.sequences());
    return {first, std::min(first + step.spec.micro_sequences, step.sequences())};
}

/// Micro-batches including the empty ones that fill up the last micro-step.
inline i64 rounded_micro_batches(const ModelStep& step) {
    return (step.micro_batches() + step.ranks - 1) / step.ranks * step.ranks;
}

struct MicroBatch {
    Tensor tokens, targets;
    i64 first = 0;  ///< sequence
    Batch batch;
};

inline MicroBatch load_micro_batch(RankSetup& rank, const ModelStep& step, i64 index) {
    const std::pair<i64, i64> range = micro_batch_range(step, index);
    const i64 first = range.first, last = range.second;  // Clang 14 captures no structured bindings
    const i64 seq_len = step.spec.seq_len;
    const auto part = [&](const std::vector<i32>& all) {
        const std::vector<i32> values(all.begin() + first * seq_len, all.begin() + last * seq_len);
        return upload(rank, values, {(last - first) * seq_len});
    };
    MicroBatch one{part(step.tokens), part(step.targets), first, {}};
    one.batch = {one.tokens, one.targets, last - first, seq_len};
    return one;
}

/// What the routers of each micro-batch chose, summed in the order of micro-batches.
inline void sum_routers(const std::vector<std::vector<RouterStatistics>>& routers, ModelStepResult& result,
                        GlobalBatch& global) {
    for (std::vector<i64>* const counts : {&result.counts, &global.expert_counts}) counts->clear();
    for (std::vector<double>* const sums : {&global.expert_weights, &global.expert_loads}) sums->clear();
    const auto add = [](const auto& values, std::size_t first, auto& sums) {
        sums.resize(std::max(sums.size(), first + values.size()));
        for (std::size_t e = 0; e < values.size(); ++e) sums[first + e] += values[e];
    };
    for (const std::vector<RouterStatistics>& layers : routers) {
        for (std::size_t layer = 0; layer < layers.size(); ++layer) {
            const RouterStatistics& router = layers[layer];
            const std::size_t first = layer * router.counts.size();
            add(router.counts, first, result.counts);
            add(router.balance_counts, first, global.expert_counts);
            add(router.weights, first, global.expert_weights);
            add(router.loads, first, global.expert_loads);
        }
    }
}

/// A forward-only pass: logits, and what scope global needs.
inline void count_rank(const ModelStep& step, RankSetup& rank, Model& model, ModelStepResult& result,
                       std::vector<std::vector<RouterStatistics>>& routers, std::mutex& mutex) {
    const Communicator& world = rank.mesh.world();
    rank.context.phase = Phase::evaluate;
    for (i64 index = world.rank(); index < rounded_micro_batches(step); index += world.size()) {
        const MicroBatch one = load_micro_batch(rank, step, index);
        ModelSaved saved;
        const ForwardResult forward = model.forward(rank.context, one.batch, saved);
        EXPECT_TRUE(saved.blocks.empty());
        const std::vector<double> logits = rank.read<double>(model.logits(rank.context, one.batch));
        const std::vector<i32> wrong = rank.read<i32>(forward.token_wrong);
        const std::vector<double> margin = rank.read<double>(forward.token_margin);
        const std::lock_guard lock(mutex);
        std::copy(wrong.begin(), wrong.end(), result.token_wrong.begin() + one.first * step.spec.seq_len);
        std::copy(margin.begin(), margin.end(), result.token_margin.begin() + one.first * step.spec.seq_len);
        routers[static_cast<std::size_t>(index)] = forward.routers;
        std::copy(logits.begin(), logits.end(),
                  result.logits.begin() + one.first * step.spec.seq_len * step.spec.vocabulary);
    }
    rank.context.phase = Phase::train;
}

/// One rank's part of the step.
inline void model_step_rank(const ModelStep& step, Communicator& world, ModelStepResult& result,
                            std::vector<std::vector<RouterStatistics>>& routers, std::mutex& mutex) {
    RankSetup rank(world, step.expert_parallel, static_cast<int>(step.spec.experts), {step.mode, 7});
    ParameterStore store(*rank.backend, DType::f64);
    Model model(step.spec, rank.mesh, store, step.defects);
    allocate_with_noise(rank, store);
    for (Parameter& parameter : store.parameters()) {
        if (step.weights.empty()) continue;
        const std::vector<double>& values = step.weights.at(parameter.name);
        std::memcpy(parameter.value.data, values.data(), values.size() * sizeof(double));
    }
    GlobalBatch global;
    global.tokens = static_cast<i64>(step.tokens.size());
    for (const i32 target : step.targets) global.targets += target >= 0 ? 1 : 0;

    count_rank(step, rank, model, result, routers, mutex);
    world.barrier({"test: counts"});
    {
        const std::lock_guard lock(mutex);
        sum_routers(routers, result, global);
    }
    if (step.spec.balance.scope != BalanceScope::global) global.expert_counts.clear();
    for (i64 index = world.rank(); index < rounded_micro_batches(step); index += world.size()) {
        const MicroBatch one = load_micro_batch(rank, step, index);
        ModelSaved saved;
        const ForwardResult forward = model.forward(rank.context, one.batch, saved);
        const BalanceTerms terms = model.balance(saved, global);
        model.backward(rank.context, saved, global,
                       [&](int segment) { store.fold_segment(*rank.compute, segment); });
        const std::vector<double> loss = rank.read<double>(forward.token_loss);
        const std::vector<double> margin = rank.read<double>(forward.token_margin);
        const std::lock_guard lock(mutex);
        std::copy(margin.begin(), margin.end(), result.train_margin.begin() + one.first * step.spec.seq_len);
        std::copy(loss.begin(), loss.end(), result.token_loss.begin() + one.first * step.spec.seq_len);
        result.balance.aux += terms.aux;
        result.balance.z += terms.z;
        result.balance.importance += terms.importance;
        for (const RouterStatistics& router : forward.routers) result.dropped += router.dropped;
    }
    store.complete_gradients(*rank.compute);
    rank.drain();
    for (int turn = 0; turn < world.size(); ++turn) {  // gradients in rank order
        world.barrier({"test: turn"});
        if (turn != world.rank()) continue;
        for (const Parameter& parameter : store.parameters()) {
            const double* values = parameter.grad.as<double>();
            std::vector<double>& sum = result.gradients[parameter.name];
            sum.resize(static_cast<std::size_t>(parameter.grad.elements()));
            for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += values[j];
        }
    }
}

}  // namespace detail

[[nodiscard]] inline ModelStepResult run_model_step(const ModelStep& step) {
    ModelStepResult result;
    result.token_loss.resize(step.tokens.size());
    result.token_wrong.resize(step.tokens.size());
    result.token_margin.resize(step.tokens.size());
    result.train_margin.resize(step.tokens.size());
    result.logits.resize(step.tokens.size() * static_cast<std::size_t>(step.spec.vocabulary));
    std::vector<std::vector<RouterStatistics>> routers(
        static_cast<std::size_t>(detail::rounded_micro_batches(step)));
    std::mutex mutex;
    run_ranks(
        step.ranks,
        [&](Communicator& world) { detail::model_step_rank(step, world, result, routers, mutex); }, 60);
    i64 targets = 0;
    for (const i32 target : step.targets) targets += target >= 0 ? 1 : 0;
    for (const double loss : result.token_loss) result.loss += loss / static_cast<double>(targets);
    return result;
}

}  // namespace moesaic
