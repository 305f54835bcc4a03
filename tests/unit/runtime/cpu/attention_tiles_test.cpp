// Attention of bf16 by tiles, those of the CPU where it has some and plain loops in their order.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "runtime/cpu/bf16_products.h"
#include "tests/unit/runtime/cpu/attention_problem.h"
#include "tests/unit/runtime/cpu/cpu_target.h"

#include <hwy/highway.h>

namespace moesaic {
namespace {

using namespace attention_test;
using TileProblem = Problem<BFloat16>;

class AttentionByTiles : public CpuTargetTest {
  protected:
    const ScopedBf16Products products_{Bf16Products::tiles};
};
INSTANTIATE_TEST_SUITE_P(Targets, AttentionByTiles, ::testing::Values(HWY_AVX3, HWY_AVX2, HWY_EMU128),
                         name_of_target);

/// kShapes, and sequences of more queries and keys than exist at a time.
std::vector<TileProblem> problems() {
    std::vector<TileProblem> all;
    for (const AttentionShape& shape : kShapes) {
        all.push_back({shape});
        all.push_back({shape});
        all.back().shape.causal = false;
    }
    all.push_back({{545, 1, 1, 16, 545}});
    all.push_back({{545, 1, 1, 16, 545}});
    all.back().first_key = documents_of({1, 200, 31, 33, 280});
    all.push_back({{300, 2, 1, 40, 150}});
    all.back().first_key = documents_of({3, 37, 60, 120, 1, 79});  // one goes on in the second sequence
    return all;
}
std::string name_of(const TileProblem& problem) {
    return fmt::format("rows {} seq_len {} head_dim {} {} documents {}", problem.shape.rows,
                       problem.shape.seq_len, problem.shape.head_dim,
                       problem.shape.causal ? "causal" : "all keys", !problem.first_key.empty());
}

void expect_about(const Values<BFloat16>& have, const Values<double>& want, const std::string& name) {
    double largest = 0;
    for (const double value : want) largest = std::max(largest, std::abs(value));
    for (std::size_t i = 0; i < have.size(); ++i)
        ASSERT_LE(std::abs(number(have[i]) - want[i]), 0x1p-7 * largest) << name << "[" << i << "]";
}

/// Rounding is off by up to 2^-8 of a number, and what is rounded on the way by about as much of the largest.
TEST_P(AttentionByTiles, MatchesTheNaiveOracle) {
    for (TileProblem& problem : problems()) {
        const Oracle want = oracle(problem.run());
        EXPECT_LE(largest_error(problem.log_sum_exp, want.log_sum_exp), 1e-5) << name_of(problem);
        expect_about(problem.out, want.out, name_of(problem) + " out");
        expect_about(problem.dq, want.dq, name_of(problem) + " dq");
        expect_about(problem.dk, want.dk, name_of(problem) + " dk");
        expect_about(problem.dv, want.dv, name_of(problem) + " dv");
    }
}

/// Probabilities multiply in two parts: a result is what rounds from a number next to the right one. In one
/// part the number would be off by up to 2^-8.
TEST_P(AttentionByTiles, ResultsAreHardlyOffBeforeTheyAreRounded) {
    constexpr double kOff = 0x1p-15;
    for (TileProblem& problem : problems()) {
        const Oracle want = oracle(problem.run());
        for (std::size_t i = 0; i < want.out.size(); ++i) {
            ASSERT_GE(number(problem.out[i]), number(to_bfloat16(want.out[i] - kOff))) << name_of(problem);
            ASSERT_LE(number(problem.out[i]), number(to_bfloat16(want.out[i] + kOff))) << name_of(problem);
        }
    }
}

TEST_P(AttentionByTiles, ThreadsChangeNoBit) {
    expect_threads_to_change_no_bit<BFloat16>();
}

TEST_P(AttentionByTiles, ASequenceDoesNotSeeTheOthers) {
    constexpr i64 kLength = 70, kWidth = 24;
    TileProblem all{{2 * kLength, 1, 1, kWidth, kLength}};
    TileProblem other = all;
    const BFloat16 infinite = to_bfloat16(std::numeric_limits<float>::infinity());
    for (Values<BFloat16>* values : {&other.q, &other.k, &other.v, &other.d_out})
        std::fill(values->begin() + kLength * kWidth, values->end(), infinite);
    all.run(), other.run();
    for (i64 i = 0; i < kLength * kWidth; ++i) {
        ASSERT_EQ(at(all.out, i), at(other.out, i)) << i;
        ASSERT_EQ(at(all.dq, i), at(other.dq, i)) << i;
        ASSERT_EQ(at(all.dk, i), at(other.dk, i)) << i;
        ASSERT_EQ(at(all.dv, i), at(other.dv, i)) << i;
    }
}

TEST_P(AttentionByTiles, ADocumentDoesNotSeeTheOthers) {
    expect_a_document_to_see_no_others<BFloat16>();
}

TEST_P(AttentionByTiles, LargeScoresDoNotOverflow) {
    TileProblem problem{{32, 1, 1, 16, 32}};
    for (BFloat16& value : problem.q) value = to_bfloat16(100 * number(value));
    const Oracle want = oracle(problem.run());
    EXPECT_LE(largest_error(problem.out, want.out), 0x1p-8);
}

}  // namespace
}  // namespace moesaic
