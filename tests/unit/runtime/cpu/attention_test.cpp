// Causal attention against a naive oracle, its gradient against differences, and its independence of layout.
#include "runtime/cpu/attention.h"
#include "runtime/base/worse.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/cpu/attention_kernel.h"

namespace moesaic {
namespace {

template <class T>
using Values = std::vector<T>;

template <class T>
Values<T> random_values(i64 count, u64 seed) {
    const Philox random(seed, "attention test");
    Values<T> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(4 * random.uniform(i) - 2);
    return values;
}

template <class T>
T& at(Values<T>& values, i64 index) {
    return values[static_cast<std::size_t>(index)];
}
template <class T>
double at(const Values<T>& values, i64 index) {
    return static_cast<double>(values[static_cast<std::size_t>(index)]);
}

template <class T>
struct Problem {
    AttentionShape shape;
    Values<T> q = random_values<T>(shape.rows * shape.heads * shape.head_dim, 1);
    Values<T> k = random_values<T>(shape.rows * shape.kv_heads * shape.head_dim, 2);
    Values<T> v = random_values<T>(shape.rows * shape.kv_heads * shape.head_dim, 3);
    Values<T> d_out = random_values<T>(shape.rows * shape.heads * shape.head_dim, 4);
    // Filled with a value that must not show through.
    Values<T> out = Values<T>(q.size(), T(9)),
              log_sum_exp = Values<T>(static_cast<std::size_t>(shape.heads * shape.rows), T(9));
    Values<T> dq = out, dk = Values<T>(k.size(), T(9)), dv = dk;
    std::vector<i32> first_key = {};

    Problem& run(int threads = 1) {
        ThreadPool pool(threads);
        const i32* const first = first_key.empty() ? nullptr : first_key.data();
        sequence_attention(pool, SequenceAttention<T>{shape, q.data(), k.data(), v.data(), out.data(),
                                                      log_sum_exp.data(), first});
        sequence_attention_backward(
            pool,
            SequenceAttentionGrad<T>{shape, q.data(), k.data(), v.data(), out.data(), log_sum_exp.data(),
                                     d_out.data(), dq.data(), dk.data(), dv.data(), first});
        return *this;
    }
    void expect_same_bits(const Problem& other) const {
        EXPECT_EQ(out, other.out);
        EXPECT_EQ(log_sum_exp, other.log_sum_exp);
        EXPECT_EQ(dq, other.dq);
        EXPECT_EQ(dk, other.dk);
        EXPECT_EQ(dv, other.dv);
    }
};

struct Oracle {
    Values<double> out, log_sum_exp, dq, dk, dv;
};

/// Row by row from the definition, in fp64.
template <class T>
Oracle oracle(const Problem<T>& problem) {
    const AttentionShape& s = problem.shape;
    const i64 dim = s.head_dim;
    const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
    Oracle want{Values<double>(problem.q.size()), Values<double>(problem.log_sum_exp.size()),
                Values<double>(problem.q.size()), Values<double>(problem.k.size()),
                Values<double>(problem.k.size())};
    for (i64 t = 0; t < s.rows; ++t) {
        for (i64 head = 0; head < s.heads; ++head) {
            const i64 first = t / s.seq_len * s.seq_len, row = (t * s.heads + head) * dim;
            auto key_row = [&](i64 u) { return (u * s.kv_heads + head / (s.heads / s.kv_heads)) * dim; };
            Values<double> p, dp;
            double sum = 0, delta = 0, max = -1e300;
            for (i64 u = first; u <= t; ++u) {
                double score = 0, d = 0;
                for (i64 i = 0; i < dim; ++i) {
                    score += at(problem.q, row + i) * at(problem.k, key_row(u) + i) * scale;
                    d += at(problem.d_out, row + i) * at(problem.v, key_row(u) + i);
                }
                p.push_back(score);
                dp.push_back(d);
                max = std::max(max, score);
            }
            for (double& x : p) sum += x = std::exp(x - max);
            for (std::size_t u = 0; u < p.size(); ++u) delta += (p[u] /= sum) * dp[u];
            at(want.log_sum_exp, head * s.rows + t) = max + std::log(sum);
            for (i64 u = first; u <= t; ++u) {
                const double probability = at(std::as_const(p), u - first);
                const double ds = probability * (at(std::as_const(dp), u - first) - delta) * scale;
                for (i64 i = 0; i < dim; ++i) {
                    at(want.out, row + i) += probability * at(problem.v, key_row(u) + i);
                    at(want.dq, row + i) += ds * at(problem.k, key_row(u) + i);
                    at(want.dk, key_row(u) + i) += ds * at(problem.q, row + i);
                    at(want.dv, key_row(u) + i) += probability * at(problem.d_out, row + i);
                }
            }
        }
    }
    return want;
}

template <class T>
double largest_error(const Values<T>& have, const Values<double>& want) {
    double error = 0;
    for (std::size_t i = 0; i < have.size(); ++i)
        error =
            worse(error, std::abs(static_cast<double>(have[i]) - want[i]) / std::max(1.0, std::abs(want[i])));
    return error;
}

const std::vector<AttentionShape> kShapes{// rows, heads, kv_heads, head_dim, seq_len
                                          {0, 2, 1, 8, 4},      {1, 1, 1, 1, 1},     {6, 2, 2, 4, 3},
                                          {34, 4, 2, 17, 17},   {130, 3, 1, 32, 65}, {64, 1, 1, 64, 64},
                                          {200, 4, 4, 50, 200}, {256, 2, 1, 32, 128}};

std::vector<i32> documents_of(const std::vector<i64>& lengths) {
    std::vector<i32> first_key;
    for (const i64 length : lengths)
        first_key.insert(first_key.end(), static_cast<std::size_t>(length),
                         static_cast<i32>(first_key.size()));
    return first_key;
}

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
    Problem<TypeParam> one{{240, 4, 2, 24, 80}};
    Problem<TypeParam> three = one;
    one.run(1).expect_same_bits(three.run(3));
    one.first_key = three.first_key = documents_of({1, 33, 100, 1, 105});
    one.run(1).expect_same_bits(three.run(3));
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

/// Neither another document's values nor how the rows before are cut into documents changes a bit.
TYPED_TEST(Attention, ADocumentDoesNotSeeTheOthers) {
    constexpr i64 kHeads = 4, kKeyHeads = 2, kDim = 24, kRows = 150, kFirst = 71, kCount = 50;
    Problem<TypeParam> one{{kRows, kHeads, kKeyHeads, kDim, kRows}};
    Problem<TypeParam> other = one;
    one.first_key = documents_of({1, 70, kCount, 29});
    other.first_key = documents_of({3, 37, 31, kCount, 1, 28});
    const auto change = [](Values<TypeParam>& values, i64 width) {
        for (i64 i = 0; i < kRows * width; ++i)
            if (i < kFirst * width || i >= (kFirst + kCount) * width) at(values, i) += TypeParam(1);
    };
    change(other.q, kHeads * kDim);
    change(other.k, kKeyHeads * kDim);
    change(other.v, kKeyHeads * kDim);
    change(other.d_out, kHeads * kDim);
    one.run();
    other.run();
    const auto part = [](const Values<TypeParam>& from, i64 width) {
        return Values<TypeParam>(from.begin() + kFirst * width, from.begin() + (kFirst + kCount) * width);
    };
    EXPECT_EQ(part(one.out, kHeads * kDim), part(other.out, kHeads * kDim));
    EXPECT_EQ(part(one.dq, kHeads * kDim), part(other.dq, kHeads * kDim));
    EXPECT_EQ(part(one.dk, kKeyHeads * kDim), part(other.dk, kKeyHeads * kDim));
    EXPECT_EQ(part(one.dv, kKeyHeads * kDim), part(other.dv, kKeyHeads * kDim));
    EXPECT_NE(one.out, other.out);
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
