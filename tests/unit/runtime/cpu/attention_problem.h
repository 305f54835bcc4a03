// Problems of attention, and what comes of them row by row from the definition.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/base/worse.h"
#include "runtime/bfloat16.h"
#include "runtime/cpu/attention.h"

namespace moesaic::attention_test {

template <class T>
using Values = std::vector<T>;

template <class T>
T stored(double value) {
    if constexpr (std::is_same_v<T, BFloat16>) {
        return to_bfloat16(value);
    } else {
        return static_cast<T>(value);
    }
}
template <class T>
double number(T value) {
    if constexpr (std::is_same_v<T, BFloat16>) {
        return static_cast<double>(widened(value));
    } else {
        return static_cast<double>(value);
    }
}

template <class T>
Values<T> random_values(i64 count, u64 seed) {
    const Philox random(seed, "attention test");
    Values<T> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = stored<T>(4 * random.uniform(i) - 2);
    return values;
}

template <class T>
T& at(Values<T>& values, i64 index) {
    return values[static_cast<std::size_t>(index)];
}
template <class T>
double at(const Values<T>& values, i64 index) {
    return number(values[static_cast<std::size_t>(index)]);
}

template <class T>
struct Problem {
    AttentionShape shape;
    Values<T> q = random_values<T>(shape.rows * shape.heads * shape.head_dim, 1);
    Values<T> k = random_values<T>(shape.rows * shape.kv_heads * shape.head_dim, 2);
    Values<T> v = random_values<T>(shape.rows * shape.kv_heads * shape.head_dim, 3);
    Values<T> d_out = random_values<T>(shape.rows * shape.heads * shape.head_dim, 4);
    // Filled with a value that must not show through.
    Values<T> out = Values<T>(q.size(), stored<T>(9));
    Values<cpu::RealType<T>> log_sum_exp =
        Values<cpu::RealType<T>>(static_cast<std::size_t>(shape.heads * shape.rows), cpu::RealType<T>(9));
    Values<T> dq = out, dk = Values<T>(k.size(), stored<T>(9)), dv = dk;
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
            const i64 end = s.causal ? t + 1 : first + s.seq_len;
            const i64 begin = problem.first_key.empty()
                                  ? first
                                  : std::max(first, i64{problem.first_key[static_cast<std::size_t>(t)]});
            for (i64 u = begin; u < end; ++u) {
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
            for (i64 u = begin; u < end; ++u) {
                const double probability = at(std::as_const(p), u - begin);
                const double ds = probability * (at(std::as_const(dp), u - begin) - delta) * scale;
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
        error = worse(error, std::abs(number(have[i]) - want[i]) / std::max(1.0, std::abs(want[i])));
    return error;
}

inline const std::vector<AttentionShape> kShapes{
    // rows, heads, kv_heads, head_dim, seq_len
    {0, 2, 1, 8, 4},     {1, 1, 1, 1, 1},    {6, 2, 2, 4, 3},      {34, 4, 2, 17, 17},
    {130, 3, 1, 32, 65}, {64, 1, 1, 64, 64}, {200, 4, 4, 50, 200}, {256, 2, 1, 32, 128}};

inline std::vector<i32> documents_of(const std::vector<i64>& lengths) {
    std::vector<i32> first_key;
    for (const i64 length : lengths)
        first_key.insert(first_key.end(), static_cast<std::size_t>(length),
                         static_cast<i32>(first_key.size()));
    return first_key;
}

template <class T>
void expect_threads_to_change_no_bit() {
    Problem<T> one{{240, 4, 2, 24, 80}};
    Problem<T> three = one;
    one.run(1).expect_same_bits(three.run(3));
    one.first_key = three.first_key = documents_of({1, 33, 100, 1, 105});
    one.run(1).expect_same_bits(three.run(3));
}

/// Neither another document's values nor how the rows before are cut into documents changes a bit.
template <class T>
void expect_a_document_to_see_no_others() {
    constexpr i64 kHeads = 4, kKeyHeads = 2, kDim = 24, kRows = 150, kFirst = 71, kCount = 50;
    Problem<T> one{{kRows, kHeads, kKeyHeads, kDim, kRows}};
    Problem<T> other = one;
    one.first_key = documents_of({1, 70, kCount, 29});
    other.first_key = documents_of({3, 37, 31, kCount, 1, 28});
    const auto change = [](Values<T>& values, i64 width) {
        for (i64 i = 0; i < kRows * width; ++i)
            if (i < kFirst * width || i >= (kFirst + kCount) * width)
                at(values, i) = stored<T>(number(at(values, i)) + 1);
    };
    change(other.q, kHeads * kDim);
    change(other.k, kKeyHeads * kDim);
    change(other.v, kKeyHeads * kDim);
    change(other.d_out, kHeads * kDim);
    one.run();
    other.run();
    const auto part = [](const Values<T>& from, i64 width) {
        return Values<T>(from.begin() + kFirst * width, from.begin() + (kFirst + kCount) * width);
    };
    EXPECT_TRUE(part(one.out, kHeads * kDim) == part(other.out, kHeads * kDim));
    EXPECT_TRUE(part(one.dq, kHeads * kDim) == part(other.dq, kHeads * kDim));
    EXPECT_TRUE(part(one.dk, kKeyHeads * kDim) == part(other.dk, kKeyHeads * kDim));
    EXPECT_TRUE(part(one.dv, kKeyHeads * kDim) == part(other.dv, kKeyHeads * kDim));
    EXPECT_FALSE(one.out == other.out);
}

}  // namespace moesaic::attention_test
