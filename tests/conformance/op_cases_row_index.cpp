// Cases of products whose operands are read through a row index.
#include <numeric>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

i64 sum_of(const std::vector<i64>& counts) {
    return std::accumulate(counts.begin(), counts.end(), i64{0});
}

std::size_t group_of(const std::vector<i64>& counts, i64 row) {
    std::size_t group = 0;
    while (row >= counts[group]) row -= counts[group++];
    return group;
}

/// What an index makes of an operand, by gather_rows.
Tensor gathered(Backend& b, Stream& s, TensorView from, TensorView index) {
    Tensor rows = b.allocate({index.rows(), from.cols()}, from.dtype);
    b.gather_rows(s, {.in = from, .index = index, .out = rows});
    return rows;
}

void append_indexed(std::vector<OpCase>& cases, const std::vector<i64>& counts, i64 n, i64 p) {
    const i64 groups = static_cast<i64>(counts.size()), rows = sum_of(counts), tokens = rows / 2 + 1;
    const auto product = [=](Views v) {
        return GroupedGemm{.a = v[0], .b = v[2], .c = v[3], .rows_per_group = counts};
    };
    const auto place = [=](const Values& v, i64 row) { return static_cast<i64>(v[1][at(row)]); };
    cases.push_back(
        {.name = fmt::format("grouped_gemm with a_rows {} groups {}x{}x{}", groups, rows, n, p),
         .buffers = {normal("a", {tokens, p}), integers("index", {rows}, 0, tokens),
                     normal("b", {groups, p, n}), output("c", {rows, n})},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 GroupedGemm operation = product(v);
                 operation.a_rows = v[1];
                 b.grouped_gemm(s, operation);
             },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < rows * n; ++i) {
                     const i64 row = i / n, column = i % n;
                     double sum = 0;
                     for (i64 j = 0; j < p; ++j)
                         sum += v[0][at(place(v, row) * p + j)] *
                                v[2][at((static_cast<i64>(group_of(counts, row)) * p + j) * n + column)];
                     v[3][at(i)] = sum;
                 }
             },
         .tolerance_f32 = 2e-5,
         .mixes = true,
         .products = Products::sums,
         .row_unit = 0,
         .same_bits =
             [=](Backend& b, Stream& s, Views v) {
                 const Tensor a = gathered(b, s, v[0], v[1]);
                 GroupedGemm operation = product(v);
                 operation.a = a;
                 b.grouped_gemm(s, operation);
                 s.synchronize();
             }});
}

/// With an index for a, for b, or for both.
void append_indexed_grad(std::vector<OpCase>& cases, const std::vector<i64>& counts, i64 m, i64 n, bool of_a,
                         bool of_b) {
    const i64 groups = static_cast<i64>(counts.size()) / 2, rows = sum_of(counts), tokens = rows / 2 + 1;
    Buffer sum = normal("c", {groups, m, n});
    sum.storage = Storage::f64;
    const auto product = [=](Views v) {
        return GroupedGemmWeightGrad{.a = v[0], .b = v[1], .c = v[4], .rows_per_part = counts};
    };
    cases.push_back(
        {.name = fmt::format("grouped_gemm_weight_grad with{}{} {} groups {}x{}x{}", of_a ? " a_rows" : "",
                             of_b ? " b_rows" : "", groups, rows, m, n),
         .buffers = {normal("a", {of_a ? tokens : rows, m}), normal("b", {of_b ? tokens : rows, n}),
                     integers("index of a", {rows}, 0, tokens), integers("index of b", {rows}, 0, tokens),
                     written(sum)},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 GroupedGemmWeightGrad operation = product(v);
                 if (of_a) operation.a_rows = v[2];
                 if (of_b) operation.b_rows = v[3];
                 b.grouped_gemm_weight_grad(s, operation);
             },
         .reference =
             [=](Values& v) {
                 for (i64 row = 0; row < rows; ++row) {
                     const i64 group = static_cast<i64>(group_of(counts, row)) / 2;
                     const i64 a_row = of_a ? static_cast<i64>(v[2][at(row)]) : row;
                     const i64 b_row = of_b ? static_cast<i64>(v[3][at(row)]) : row;
                     for (i64 i = 0; i < m * n; ++i)
                         v[4][at(group * m * n + i)] +=
                             v[0][at(a_row * m + i / n)] * v[1][at(b_row * n + i % n)];
                 }
             },
         .tolerance_f32 = 2e-5,
         .mixes = true,
         .products = Products::sums,
         .row_unit = 0,
         .same_bits =
             [=](Backend& b, Stream& s, Views v) {
                 const Tensor a = of_a ? gathered(b, s, v[0], v[2]) : Tensor();
                 const Tensor other = of_b ? gathered(b, s, v[1], v[3]) : Tensor();
                 GroupedGemmWeightGrad operation = product(v);
                 if (of_a) operation.a = a;
                 if (of_b) operation.b = other;
                 b.grouped_gemm_weight_grad(s, operation);
                 s.synchronize();
             }});
}

}  // namespace

void append_row_index_cases(std::vector<OpCase>& cases) {
    append_indexed(cases, {0, 0}, 5, 7);
    append_indexed(cases, {3, 0, 1}, 19, 9);
    append_indexed(cases, {40, 0, 7, 300}, 64, 600);
    for (const bool of_a : {false, true}) {
        for (const bool of_b : {false, true}) {
            append_indexed_grad(cases, {3, 0, 1, 0}, 19, 9, of_a, of_b);
            append_indexed_grad(cases, {3, 5}, 1, 1, of_a, of_b);
            append_indexed_grad(cases, {40, 7, 0, 600}, 50, 30, of_a, of_b);
            append_indexed_grad(cases, {9, 2}, 70, 130, of_a, of_b);
        }
    }
}

}  // namespace moesaic::conformance
