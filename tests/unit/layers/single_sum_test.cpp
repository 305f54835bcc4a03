// Gradients that are their own sums (ParameterStore::sum_once): the bits of f64 sums, for any model.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "tests/support/model_step.h"

namespace moesaic {
namespace {

using Bits = std::map<std::string, std::vector<std::byte>>;  // of each parameter's gradients, in turn

ModelStep tiny_step() {
    return tiny_model_step(4);  // two micro-batches: a step's each
}

/// Two steps of one micro-batch each.
Bits gradients_of(const ModelStep& step, DType dtype, bool once) {
    Bits bits;
    run_ranks(
        1,
        [&](Communicator& world) {
            RankSetup rank(world, 1, static_cast<int>(step.spec.experts));
            ParameterStore store(*rank.backend, dtype);
            Model model(step.spec, rank.mesh, store);
            if (once) store.sum_once();
            store.allocate(*rank.compute, 5);
            GlobalBatch global;
            global.tokens = global.targets = step.spec.micro_tokens();
            for (const i64 index : {0, 1}) {
                for (int time = 0; time < 2; ++time) store.zero_gradients(*rank.compute);
                const detail::MicroBatch one = detail::load_micro_batch(rank, step, index);
                ModelSaved saved;
                (void)model.forward(rank.context, one.batch, saved);
                (void)model.balance(saved, global);
                model.backward(rank.context, saved, global,
                               [&](int segment) { store.fold_segment(*rank.compute, segment); });
                store.complete_gradients(*rank.compute);
                rank.drain();
                for (const Parameter& parameter : store.parameters()) {
                    const auto* const bytes = static_cast<const std::byte*>(parameter.grad.data);
                    std::vector<std::byte>& all = bits[parameter.name];
                    all.insert(all.end(), bytes, bytes + parameter.grad.bytes());
                }
            }
        },
        60);
    return bits;
}

/// How many gradients are zeros alone.
i64 empty_in(const Bits& bits) {
    return std::ranges::count_if(bits, [](const auto& one) {
        return std::ranges::all_of(one.second, [](std::byte value) { return value == std::byte{0}; });
    });
}

void expect_bits_of_f64_sums(const ModelStep& step, i64 empty = 0) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
        SCOPED_TRACE(name_of(dtype));
        const Bits want = gradients_of(step, dtype, false), got = gradients_of(step, dtype, true);
        ASSERT_EQ(got.size(), want.size());
        for (const auto& [name, bytes] : want) EXPECT_TRUE(got.at(name) == bytes) << name;
        EXPECT_GE(empty_in(want), empty) << "the case tests less than it says";
        EXPECT_GE(std::ssize(want) - empty_in(want), 20) << "next to no gradients";
    }
}

TEST(SingleSum, HasTheBitsOfF64Sums) {
    expect_bits_of_f64_sums(tiny_step());
}

/// To which the embedding and the head add, in segments of their own.
TEST(SingleSum, OfTiedEmbeddings) {
    ModelStep step = tiny_step();
    step.spec.tie_embeddings = true;
    expect_bits_of_f64_sums(step);
}

TEST(SingleSum, OfSharedExpertsAndDenseLayers) {
    ModelStep step = tiny_step();
    step.spec.shared_experts = 2;
    step.spec.shared_gate = true;
    step.spec.every = 2;
    step.spec.dense_hidden = 9;
    step.spec.activation = ActivationKind::gelu;
    expect_bits_of_f64_sums(step);
}

/// A source's rows wait for those of the next round.
TEST(SingleSum, OfRowsInSeveralRounds) {
    ModelStep step = tiny_step();
    step.spec.receive_budget = 0.1;
    expect_bits_of_f64_sums(step);
    step.spec.recompute = true;
    step.spec.receive_budget = 0.6;
    expect_bits_of_f64_sums(step);
}

/// One token chooses two of four experts: the others have no rows, in the second step perhaps where they had
/// some in the first.
TEST(SingleSum, OfExpertsWithoutRows) {
    ModelStep step = tiny_step();
    step.spec.experts = 12;
    step.spec.seq_len = step.spec.micro_sequences = 1;
    expect_bits_of_f64_sums(step, 2 * 2 * 8);
}

}  // namespace
}  // namespace moesaic
