// Cases of the matrix products and of attention.
#include <cmath>
#include <numeric>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

struct ProductSizes {
    i64 m, n, p;
};

void append_gemm(std::vector<OpCase>& cases, const ProductSizes& size, bool trans_a, bool trans_b,
                 bool accumulate) {
    const auto [m, n, p] = size;
    const Buffer a = normal("a", trans_a ? Shape{p, m} : Shape{m, p});
    cases.push_back({.name = fmt::format("gemm {}x{}x{}{}{}{}", m, n, p, trans_a ? " trans_a" : "",
                                         trans_b ? " trans_b" : "", accumulate ? " accumulate" : ""),
                     .buffers = {trans_a ? a : by_row(a), normal("b", trans_b ? Shape{n, p} : Shape{p, n}),
                                 by_row(written(normal("c", {m, n})))},
                     .run =
                         [=](Backend& b, Stream& s, Views v) {
                             b.gemm(s, {.a = v[0],
                                        .b = v[1],
                                        .c = v[2],
                                        .trans_a = trans_a,
                                        .trans_b = trans_b,
                                        .accumulate = accumulate});
                         },
                     .reference =
                         [m = m, n = n, p = p, trans_a, trans_b, accumulate](Values& v) {
                             for (i64 i = 0; i < m * n; ++i) {
                                 const i64 row = i / n, column = i % n;
                                 double sum = accumulate ? v[2][at(i)] : 0;
                                 for (i64 j = 0; j < p; ++j) {
                                     sum += v[0][at(trans_a ? j * m + row : row * p + j)] *
                                            v[1][at(trans_b ? column * p + j : j * n + column)];
                                 }
                                 v[2][at(i)] = sum;
                             }
                         },
                     .tolerance_f32 = 2e-5,
                     .row_unit = trans_a ? 0 : 1});
}

/// The group that each row belongs to, -1 behind the last group's rows.
std::vector<i64> group_of_rows(const std::vector<i64>& rows_per_group, i64 rows) {
    std::vector<i64> group(at(rows), -1);
    std::size_t row = 0;
    for (std::size_t g = 0; g < rows_per_group.size(); ++g) {
        for (i64 i = 0; i < rows_per_group[g]; ++i) group[row++] = static_cast<i64>(g);
    }
    return group;
}

void append_grouped(std::vector<OpCase>& cases, const std::vector<i64>& counts, i64 n, i64 p, bool trans_b,
                    bool accumulate) {
    const i64 groups = static_cast<i64>(counts.size());
    const i64 rows = std::accumulate(counts.begin(), counts.end(), i64{0}) + 2;  // two belong to no group
    cases.push_back(
        {.name = fmt::format("grouped_gemm {} groups {}x{}x{}{}{}", groups, rows, n, p,
                             trans_b ? " trans_b" : "", accumulate ? " accumulate" : ""),
         .buffers = {normal("a", {rows, p}), normal("b", trans_b ? Shape{groups, n, p} : Shape{groups, p, n}),
                     written(normal("c", {rows, n}))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 std::vector<i64> passing = counts;  // gone before a deferred stream runs
                 b.grouped_gemm(s, {.a = v[0],
                                    .b = v[1],
                                    .c = v[2],
                                    .rows_per_group = passing,
                                    .trans_b = trans_b,
                                    .accumulate = accumulate});
                 passing.assign(passing.size(), -1);
             },
         .reference =
             [=](Values& v) {
                 const std::vector<i64> group = group_of_rows(counts, rows);
                 for (i64 i = 0; i < rows * n; ++i) {
                     const i64 g = group[at(i / n)], column = i % n;
                     if (g < 0) continue;
                     double sum = accumulate ? v[2][at(i)] : 0;
                     for (i64 j = 0; j < p; ++j) {
                         sum += v[0][at(i / n * p + j)] *
                                v[1][at(g * n * p + (trans_b ? column * p + j : j * n + column))];
                     }
                     v[2][at(i)] = sum;
                 }
             },
         .tolerance_f32 = 2e-5,
         .row_unit = 0});
}

void append_grouped_weight_grad(std::vector<OpCase>& cases, const std::vector<i64>& counts, i64 m, i64 n) {
    const i64 groups = static_cast<i64>(counts.size());
    const i64 rows = std::accumulate(counts.begin(), counts.end(), i64{0}) + 1;
    cases.push_back(
        {.name = fmt::format("grouped_gemm_weight_grad {} groups {}x{}x{}", groups, rows, m, n),
         .buffers = {normal("a", {rows, m}), normal("b", {rows, n}), written(normal("c", {groups, m, n}))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 std::vector<i64> passing = counts;
                 b.grouped_gemm_weight_grad(s, {.a = v[0], .b = v[1], .c = v[2], .rows_per_group = passing});
                 passing.assign(passing.size(), -1);
             },
         .reference =
             [=](Values& v) {
                 const std::vector<i64> group = group_of_rows(counts, rows);
                 for (i64 row = 0; row < rows; ++row) {
                     if (group[at(row)] < 0) continue;
                     for (i64 i = 0; i < m * n; ++i) {
                         v[2][at(group[at(row)] * m * n + i)] +=
                             v[0][at(row * m + i / n)] * v[1][at(row * n + i % n)];
                     }
                 }
             },
         .tolerance_f32 = 2e-5,
         .row_unit = 0});
}

struct AttentionSizes {
    i64 sequences, seq_len, heads, kv_heads, head_dim;
};

/// Writes out and log_sum_exp (buffers `out` and `out` + 1) from q, k, v (the first three).
void attention_reference(Values& v, const AttentionSizes& size, std::size_t out) {
    const i64 rows = size.sequences * size.seq_len, dim = size.head_dim, share = size.heads / size.kv_heads;
    for (i64 t = 0; t < rows; ++t) {
        for (i64 head = 0; head < size.heads; ++head) {
            const double* q = v[0].data() + (t * size.heads + head) * dim;
            double sum = 0;
            std::vector<double> mix(at(dim));
            for (i64 u = t / size.seq_len * size.seq_len; u <= t; ++u) {
                const i64 key = (u * size.kv_heads + head / share) * dim;
                double score = 0;
                for (i64 i = 0; i < dim; ++i) score += q[i] * v[1][at(key + i)];
                const double power = std::exp(score / std::sqrt(static_cast<double>(dim)));
                sum += power;
                for (i64 i = 0; i < dim; ++i) mix[at(i)] += power * v[2][at(key + i)];
            }
            for (i64 i = 0; i < dim; ++i) v[out][at((t * size.heads + head) * dim + i)] = mix[at(i)] / sum;
            v[out + 1][at(head * rows + t)] = std::log(sum);
        }
    }
}

Attention attention_of(const AttentionSizes& size, Views v, const TensorView& out,
                       const TensorView& log_sum_exp) {
    return {.q = v[0],
            .k = v[1],
            .v = v[2],
            .out = out,
            .log_sum_exp = log_sum_exp,
            .heads = size.heads,
            .kv_heads = size.kv_heads,
            .head_dim = size.head_dim,
            .seq_len = size.seq_len};
}

/// The derivatives dq, dk, dv (buffers 6 to 8) by the definition.
void attention_grad_reference(Values& v, const AttentionSizes& size) {
    const i64 rows = size.sequences * size.seq_len, dim = size.head_dim, share = size.heads / size.kv_heads;
    const double scale = 1 / std::sqrt(static_cast<double>(dim));
    for (const std::size_t gradient : {6u, 7u, 8u}) v[gradient].assign(v[gradient].size(), 0.0);
    for (i64 t = 0; t < rows; ++t) {
        for (i64 head = 0; head < size.heads; ++head) {
            const i64 query = (t * size.heads + head) * dim;
            double delta = 0;
            for (i64 i = 0; i < dim; ++i) delta += v[5][at(query + i)] * v[3][at(query + i)];
            for (i64 u = t / size.seq_len * size.seq_len; u <= t; ++u) {
                const i64 key = (u * size.kv_heads + head / share) * dim;
                double score = 0, d_probability = 0;
                for (i64 i = 0; i < dim; ++i) {
                    score += v[0][at(query + i)] * v[1][at(key + i)];
                    d_probability += v[5][at(query + i)] * v[2][at(key + i)];
                }
                const double probability = std::exp(score * scale - v[4][at(head * rows + t)]);
                const double d_score = probability * (d_probability - delta) * scale;
                for (i64 i = 0; i < dim; ++i) {
                    v[6][at(query + i)] += d_score * v[1][at(key + i)];
                    v[7][at(key + i)] += d_score * v[0][at(query + i)];
                    v[8][at(key + i)] += probability * v[5][at(query + i)];
                }
            }
        }
    }
}

void append_attention(std::vector<OpCase>& cases, const AttentionSizes& size) {
    const i64 rows = size.sequences * size.seq_len;
    const Shape wide{rows, size.heads * size.head_dim}, narrow{rows, size.kv_heads * size.head_dim};
    const Shape sums{size.heads, rows};
    const Buffer q = normal("q", wide), k = normal("k", narrow), v_rows = normal("v", narrow);
    const std::string name = fmt::format(" {}x{} heads {}/{} dim {}", size.sequences, size.seq_len,
                                         size.heads, size.kv_heads, size.head_dim);
    cases.push_back(
        {.name = "attention" + name,
         .buffers = {q, k, v_rows, output("out", wide), output("log_sum_exp", sums)},
         .run = [=](Backend& b, Stream& s, Views v) { b.attention(s, attention_of(size, v, v[3], v[4])); },
         .reference = [=](Values& v) { attention_reference(v, size, 3); },
         .row_unit = 0});
    Values forward = {q.values, k.values, v_rows.values, output("out", wide).values,
                      output("sums", sums).values};
    attention_reference(forward, size, 3);
    cases.push_back(
        {.name = "attention_backward" + name,
         .buffers = {q, k, v_rows, filled("out", wide, forward[3]), filled("log_sum_exp", sums, forward[4]),
                     normal("d_out", wide), output("dq", wide), output("dk", narrow), output("dv", narrow)},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.attention_backward(s, {.q = v[0],
                                          .k = v[1],
                                          .v = v[2],
                                          .out = v[3],
                                          .log_sum_exp = v[4],
                                          .d_out = v[5],
                                          .dq = v[6],
                                          .dk = v[7],
                                          .dv = v[8],
                                          .heads = size.heads,
                                          .kv_heads = size.kv_heads,
                                          .head_dim = size.head_dim,
                                          .seq_len = size.seq_len});
             },
         .reference = [=](Values& v) { attention_grad_reference(v, size); },
         .tolerance_f32 = 2e-5,
         .row_unit = 0,
         .objective =
             [=](Backend& b, Stream& s, Views v) {
                 Tensor out = b.allocate(wide, DType::f64), log_sum_exp = b.allocate(sums, DType::f64);
                 b.attention(s, attention_of(size, v, out, log_sum_exp));
                 return dot(s, out, v[5]);
             },
         .gradients = {{0, 6}, {1, 7}, {2, 8}}});
}

}  // namespace

void append_product_cases(std::vector<OpCase>& cases) {
    for (const ProductSizes& size :
         {ProductSizes{0, 5, 3}, {4, 5, 0}, {1, 1, 1}, {7, 19, 33}, {70, 65, 130}}) {
        for (const int kind : {0, 1, 2, 3}) {
            append_gemm(cases, size, kind % 2 == 1, kind / 2 == 1, false);
            append_gemm(cases, size, kind % 2 == 1, kind / 2 == 1, true);
        }
    }
    for (const bool accumulate : {false, true}) {
        for (const bool trans_b : {false, true}) {
            append_grouped(cases, {0, 0}, 5, 7, trans_b, accumulate);
            append_grouped(cases, {3, 0, 1}, 19, 9, trans_b, accumulate);
            append_grouped(cases, {40, 0, 7, 90}, 64, 48, trans_b, accumulate);
        }
    }
    append_grouped_weight_grad(cases, {0, 0}, 5, 7);
    append_grouped_weight_grad(cases, {3, 0, 1}, 19, 9);
    append_grouped_weight_grad(cases, {40, 0, 7, 90}, 64, 48);
    append_attention(cases, {0, 4, 2, 1, 8});
    append_attention(cases, {2, 5, 2, 1, 6});
    append_attention(cases, {3, 1, 1, 1, 8});
    append_attention(cases, {2, 70, 4, 2, 16});
}

}  // namespace moesaic::conformance
