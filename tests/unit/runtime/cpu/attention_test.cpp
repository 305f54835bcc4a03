// Causal attention against a naive oracle, its gradient against differences, and its independence of layout.
#include "runtime/cpu/attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "runtime/cpu/attention_kernel.h"
#include "tests/unit/runtime/cpu/attention_problem.h"

namespace moesaic {
namespace {

using namespace attention_test;

template <class T>
class Attention : public ::testing::Test {};
using Reals = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Attention, Reals);

TYPED_TEST(Attention, MatchesTheNaiveOracle) {
    const double tolerance = sizeof(TypeParam) == 4 ? 1e-5 : 1e-13;
    for (const AttentionShape& shape : kShapes) {
        Problem<TypeParam> problem{shape};
        const Oracle want = oracle(problem.run());
        const std::string name =
            fmt::format("rows {} seq_len {} head_dim {}", shape.rows, shape.seq_len, shape.head_dim);
        EXPECT_LE(largest_error(problem.out, want.out), tolerance) << name;
        EXPECT_LE(largest_error(problem.log_sum_exp, want.log_sum_exp), tolerance) << name;
        EXPECT_LE(largest_error(problem.dq, want.dq), 10 * tolerance) << name;
        EXPECT_LE(largest_error(problem.dk, want.dk), 10 * tolerance) << name;
        EXPECT_LE(largest_error(problem.dv, want.dv), 10 * tolerance) << name;
    }
}

TYPED_TEST(Attention, ThreadsChangeNoBit) {
    expect_threads_to_change_no_bit<TypeParam>();
}

TYPED_TEST(Attention, ADocumentThatFillsItsWindowNeedsNoMask) {
    for (const AttentionShape& shape : kShapes) {
        Problem<TypeParam> plain{shape};
        Problem<TypeParam> masked = plain;
        masked.first_key = documents_of(
            std::vector<i64>(static_cast<std::size_t>(shape.rows / shape.seq_len), shape.seq_len));
        plain.run().expect_same_bits(masked.run());
        masked.first_key.assign(masked.first_key.size(), -5);
        plain.expect_same_bits(masked.run());
    }
}

TYPED_TEST(Attention, ADocumentDoesNotSeeTheOthers) {
    expect_a_document_to_see_no_others<TypeParam>();
}

TYPED_TEST(Attention, ASequenceDoesNotSeeTheOthers) {
    constexpr i64 kLength = 70, kHeads = 4, kKeyHeads = 2, kDim = 24;
    Problem<TypeParam> all{{3 * kLength, kHeads, kKeyHeads, kDim, kLength}};
    all.run();
    for (i64 sequence = 0; sequence < 3; ++sequence) {
        auto part = [&](const Values<TypeParam>& from, i64 width) {
            return Values<TypeParam>(from.begin() + sequence * kLength * width,
                                     from.begin() + (sequence + 1) * kLength * width);
        };
        Problem<TypeParam> alone{{kLength, kHeads, kKeyHeads, kDim, kLength}};
        alone.q = part(all.q, kHeads * kDim);
        alone.k = part(all.k, kKeyHeads * kDim);
        alone.v = part(all.v, kKeyHeads * kDim);
        alone.d_out = part(all.d_out, kHeads * kDim);
        alone.run();
        EXPECT_EQ(alone.out, part(all.out, kHeads * kDim));
        EXPECT_EQ(alone.dq, part(all.dq, kHeads * kDim));
        EXPECT_EQ(alone.dk, part(all.dk, kKeyHeads * kDim));
        EXPECT_EQ(alone.dv, part(all.dv, kKeyHeads * kDim));
    }
}

TYPED_TEST(Attention, LargeScoresDoNotOverflow) {
    Problem<TypeParam> problem{{32, 1, 1, 16, 32}};
    for (TypeParam& value : problem.q) value *= TypeParam(100);
    const Oracle want = oracle(problem.run());
    EXPECT_LE(largest_error(problem.out, want.out), sizeof(TypeParam) == 4 ? 1e-3 : 1e-11);
}

TEST(AttentionGradient, MatchesCentralDifferences) {
    Problem<double> problem{{20, 4, 2, 6, 10}};
    problem.run();
    auto loss = [&] {
        Problem<double> moved = problem;
        moved.run();
        double sum = 0;
        for (std::size_t i = 0; i < moved.out.size(); ++i) sum += moved.out[i] * moved.d_out[i];
        return sum;
    };
    constexpr double kStep = 1e-5;
    const std::pair<Values<double>*, const Values<double>*> inputs[] = {
        {&problem.q, &problem.dq}, {&problem.k, &problem.dk}, {&problem.v, &problem.dv}};
    for (const auto& [input, gradient] : inputs) {
        for (std::size_t i = 0; i < input->size(); i += 3) {
            const double before = (*input)[i];
            (*input)[i] = before + kStep;
            const double above = loss();
            (*input)[i] = before - kStep;
            const double below = loss();
            (*input)[i] = before;
            const double want = (above - below) / (2 * kStep), have = (*gradient)[i];
            ASSERT_LE(std::abs(have - want), 1e-6 * std::max(0.1, std::abs(want))) << "element " << i;
        }
    }
}

TEST(AttentionKernels, ExponentialsInFp64AreAccurate) {
    for (double x = -700; x <= 0; x += 0.37) {
        double row[1 + kAttentionSlack] = {x}, d_row[1 + kAttentionSlack] = {0};
        attention_kernels<double>().softmax_backward(row, d_row, {0, 1, 1}, 1.0, 0.0, 0.0);
        ASSERT_NEAR(row[0] / std::exp(x), 1.0, 1e-15) << x;
    }
}

}  // namespace
}  // namespace moesaic
