// Cases of the matrix products.
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
                     .mixes = true,
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
         .mixes = true,
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
         .mixes = true,
         .row_unit = 0});
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
}

}  // namespace moesaic::conformance
