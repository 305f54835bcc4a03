// Cases of attention.
#include <algorithm>
#include <cmath>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

struct AttentionSizes {
    i64 sequences, seq_len, heads, kv_heads, head_dim;
    std::vector<i64> documents = {};  ///< their lengths, T rows in all; empty: no first_key
    bool causal = true;
    /// One past the last row whose key row t reads.
    [[nodiscard]] i64 end_of(i64 t) const { return causal ? t + 1 : (t / seq_len + 1) * seq_len; }
    [[nodiscard]] i64 rows() const { return sequences * seq_len; }
};

/// The row where each row's document begins, which may be in an earlier sequence; [0] without documents.
Buffer first_keys(const AttentionSizes& size) {
    std::vector<double> first;
    for (const i64 length : size.documents)
        first.insert(first.end(), at(length), static_cast<double>(first.size()));
    if (first.empty()) return filled("first_key", {0}, {}, Storage::int32);
    return filled("first_key", {size.rows()}, first, Storage::int32);
}

/// The first row whose key row t reads.
i64 first_key_of(const AttentionSizes& size, const std::vector<double>& first_key, i64 t) {
    const i64 sequence_row = t / size.seq_len * size.seq_len;
    return first_key.empty() ? sequence_row : std::max(sequence_row, static_cast<i64>(first_key[at(t)]));
}

/// Writes out and log_sum_exp (buffers 3 and 4) from q, k, v (the first three) and first_key (the last).
void attention_reference(Values& v, const AttentionSizes& size) {
    constexpr std::size_t out = 3;
    const i64 rows = size.rows(), dim = size.head_dim, share = size.heads / size.kv_heads;
    for (i64 t = 0; t < rows; ++t) {
        for (i64 head = 0; head < size.heads; ++head) {
            const double* q = v[0].data() + (t * size.heads + head) * dim;
            double sum = 0;
            std::vector<double> mix(at(dim));
            for (i64 u = first_key_of(size, v.back(), t); u < size.end_of(t); ++u) {
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
            .seq_len = size.seq_len,
            .first_key = v.back(),
            .causal = size.causal};
}

/// The derivatives dq, dk, dv (buffers 6 to 8) by the definition.
void attention_grad_reference(Values& v, const AttentionSizes& size) {
    const i64 rows = size.rows(), dim = size.head_dim, share = size.heads / size.kv_heads;
    const double scale = 1 / std::sqrt(static_cast<double>(dim));
    for (const std::size_t gradient : {6u, 7u, 8u}) v[gradient].assign(v[gradient].size(), 0.0);
    for (i64 t = 0; t < rows; ++t) {
        for (i64 head = 0; head < size.heads; ++head) {
            const i64 query = (t * size.heads + head) * dim;
            double delta = 0;
            for (i64 i = 0; i < dim; ++i) delta += v[5][at(query + i)] * v[3][at(query + i)];
            for (i64 u = first_key_of(size, v.back(), t); u < size.end_of(t); ++u) {
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
    const i64 rows = size.rows();
    const Shape wide{rows, size.heads * size.head_dim}, narrow{rows, size.kv_heads * size.head_dim};
    const Shape sums{size.heads, rows};
    const Buffer q = normal("q", wide), k = normal("k", narrow), v_rows = normal("v", narrow);
    const Buffer first_key = first_keys(size);
    const std::string name =
        fmt::format(" {}x{} heads {}/{} dim {} documents {}{}", size.sequences, size.seq_len, size.heads,
                    size.kv_heads, size.head_dim, size.documents.size(), size.causal ? "" : " all keys");
    cases.push_back(
        {.name = "attention" + name,
         .buffers = {q, k, v_rows, output("out", wide), real(output("log_sum_exp", sums)), first_key},
         .run = [=](Backend& b, Stream& s, Views v) { b.attention(s, attention_of(size, v, v[3], v[4])); },
         .reference = [=](Values& v) { attention_reference(v, size); },
         .products = Products::round_inside,
         .row_unit = 0});
    Values forward = {
        q.values,        k.values, v_rows.values, output("out", wide).values, output("sums", sums).values,
        first_key.values};
    attention_reference(forward, size);
    cases.push_back({.name = "attention_backward" + name,
                     .buffers = {q, k, v_rows, filled("out", wide, forward[3]),
                                 real(filled("log_sum_exp", sums, forward[4])), normal("d_out", wide),
                                 output("dq", wide), output("dk", narrow), output("dv", narrow), first_key},
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
                                                      .seq_len = size.seq_len,
                                                      .first_key = v.back(),
                                                      .causal = size.causal});
                         },
                     .reference = [=](Values& v) { attention_grad_reference(v, size); },
                     .tolerance_f32 = 2e-5,
                     .products = Products::round_inside,
                     .row_unit = 0,
                     .objective =
                         [=](Backend& b, Stream& s, Views v) {
                             Tensor out = b.allocate(wide, DType::f64),
                                    log_sum_exp = b.allocate(sums, DType::f64);
                             b.attention(s, attention_of(size, v, out, log_sum_exp));
                             return dot(s, out, v[5]);
                         },
                     .gradients = {{0, 6}, {1, 7}, {2, 8}}});
}

}  // namespace

void append_attention_cases(std::vector<OpCase>& cases) {
    append_attention(cases, {0, 4, 2, 1, 8});
    append_attention(cases, {2, 5, 2, 1, 6});
    append_attention(cases, {3, 1, 1, 1, 8});
    append_attention(cases, {2, 70, 4, 2, 16});
    append_attention(cases, {2, 5, 2, 1, 6, {1, 3, 4, 1, 1}});
    append_attention(cases, {3, 1, 1, 1, 8, {3}});
    append_attention(cases, {1, 7, 1, 1, 8, {7}});
    append_attention(cases, {2, 70, 4, 2, 16, {1, 20, 57, 1, 61}});
    append_attention(cases, {1, 200, 2, 2, 16, {100, 1, 1, 98}});
    append_attention(cases, {0, 4, 2, 1, 8, {}, false});
    append_attention(cases, {3, 1, 1, 1, 8, {}, false});
    append_attention(cases, {2, 5, 2, 1, 6, {}, false});
    append_attention(cases, {2, 36, 4, 2, 8, {}, false});
    append_attention(cases, {1, 150, 2, 2, 16, {}, false});
    // Widths of a GPU's tiles of 32, 64, 128 and 256 columns, whole and not; sequences that end within a
    // tile.
    append_attention(cases, {2, 1, 2, 2, 32});
    append_attention(cases, {1, 100, 2, 1, 64});
    append_attention(cases, {1, 67, 1, 1, 128, {3, 29, 35}});
    append_attention(cases, {1, 66, 2, 1, 128, {}, false});
    append_attention(cases, {1, 41, 1, 1, 80});
    append_attention(cases, {1, 35, 1, 1, 144, {34, 1}});
    append_attention(cases, {1, 40, 2, 2, 256});
}

}  // namespace moesaic::conformance
