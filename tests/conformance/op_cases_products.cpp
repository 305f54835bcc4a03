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
                     .products = Products::sums,
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
         .products = Products::sums,
         .row_unit = 0});
}

/// `counts` [groups, parts].
void append_grouped_weight_grad(std::vector<OpCase>& cases, i64 groups, const std::vector<i64>& counts, i64 m,
                                i64 n, bool from_zero = false) {
    const i64 parts = groups > 0 ? static_cast<i64>(counts.size()) / groups : 0;
    const i64 rows = std::accumulate(counts.begin(), counts.end(), i64{0}) + 1;
    Buffer sum = normal("c", {groups, m, n});
    sum.storage = Storage::f64;
    cases.push_back(
        {.name = fmt::format("grouped_gemm_weight_grad {} groups of {} parts {}x{}x{}{}", groups, parts, rows,
                             m, n, from_zero ? " from zero" : ""),
         .buffers = {normal("a", {rows, m}), normal("b", {rows, n}), written(sum)},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 std::vector<i64> passing = counts;
                 b.grouped_gemm_weight_grad(
                     s, {.a = v[0], .b = v[1], .c = v[2], .rows_per_part = passing, .from_zero = from_zero});
                 passing.assign(passing.size(), -1);
             },
         .reference =
             [=](Values& v) {
                 const std::vector<i64> part = group_of_rows(counts, rows);
                 if (from_zero) v[2].assign(v[2].size(), 0);
                 for (i64 row = 0; row < rows; ++row) {
                     if (part[at(row)] < 0) continue;
                     for (i64 i = 0; i < m * n; ++i) {
                         v[2][at(part[at(row)] / parts * m * n + i)] +=
                             v[0][at(row * m + i / n)] * v[1][at(row * n + i % n)];
                     }
                 }
             },
         .tolerance_f32 = 2e-5,
         .mixes = true,
         .products = Products::sums,
         .row_unit = 0,
         .same_bits =
             [=](Backend& b, Stream& s, Views v) {
                 i64 first = 0;
                 Tensor part = b.allocate({m, n}, accumulation_type(v[0].dtype));
                 if (from_zero) b.zero(s, v[2]);
                 for (std::size_t i = 0; i < counts.size(); ++i) {
                     b.gemm(s, {.a = v[0].slice_rows(first, counts[i]),
                                .b = v[1].slice_rows(first, counts[i]),
                                .c = part,
                                .trans_a = true});
                     const TensorView group = v[2].slice_rows(static_cast<i64>(i) / parts, 1);
                     b.fold(s, part, group.reshaped({m, n}), {});
                     first += counts[i];
                 }
                 s.synchronize();
             }});
}

/// y = x · op(W) of a weight's packed copies, against the weight itself.
void append_packed(std::vector<OpCase>& cases, i64 groups, i64 rows_each, i64 n, i64 p, bool trans_b) {
    const i64 rows = groups * rows_each, inner = trans_b ? p : n, columns = trans_b ? n : p;
    const std::vector<i64> counts(at(groups), rows_each);
    const auto run = [=](Backend& b, Stream& s, Views v, bool packed) {
        const PackedElements elements = b.packed_elements(v[1].shape, v[1].dtype);
        Tensor transposed = b.allocate({elements.transposed}, v[1].dtype);
        Tensor plain = b.allocate({elements.plain}, v[1].dtype);
        b.pack(s, {.weight = v[1], .transposed = transposed.view(), .plain = plain.view()});
        const ConstTensorView copy = trans_b ? transposed.view() : plain.view();
        b.grouped_gemm(s, {.a = v[0],
                           .b = v[1],
                           .c = v[2],
                           .rows_per_group = counts,
                           .trans_b = trans_b,
                           .packed_b = packed ? copy : ConstTensorView()});
        if (groups == 1) {
            const TensorView weight = v[1].reshaped({n, p});
            b.gemm(s, {.a = v[0],
                       .b = weight,
                       .c = v[3],
                       .trans_b = trans_b,
                       .accumulate = true,
                       .packed_b = packed ? copy : ConstTensorView()});
        }
        s.synchronize();  // the copies go
    };
    cases.push_back({.name = fmt::format("pack {} groups of {} rows {}x{}{}", groups, rows_each, n, p,
                                         trans_b ? " trans_b" : ""),
                     .buffers = {normal("x", {rows, inner}), normal("w", {groups, n, p}),
                                 output("y", {rows, columns}), written(normal("z", {rows, columns}))},
                     .run = [=](Backend& b, Stream& s, Views v) { run(b, s, v, true); },
                     .reference =
                         [=](Values& v) {
                             for (i64 i = 0; i < rows * columns; ++i) {
                                 const i64 row = i / columns, column = i % columns;
                                 double sum = 0;
                                 for (i64 j = 0; j < inner; ++j) {
                                     const i64 element = trans_b ? column * p + j : j * p + column;
                                     sum += v[0][at(row * inner + j)] *
                                            v[1][at(row / rows_each * n * p + element)];
                                 }
                                 v[2][at(i)] = sum;
                                 if (groups == 1) v[3][at(i)] += sum;
                             }
                         },
                     .tolerance_f32 = 1e-4,
                     .mixes = true,
                     .products = Products::sums,
                     .row_unit = 0,
                     .same_bits = [=](Backend& b, Stream& s, Views v) { run(b, s, v, false); },
                     .synchronizes = true});
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
            append_grouped(cases, {1, 0, 130, 7}, 264, 24, trans_b, accumulate);  // more than tiles
        }
    }
    append_grouped_weight_grad(cases, 2, {0, 0}, 5, 7);
    append_grouped_weight_grad(cases, 3, {3, 0, 1}, 19, 9);
    append_grouped_weight_grad(cases, 4, {40, 0, 7, 90}, 64, 48);
    append_grouped_weight_grad(cases, 2, {1, 0, 5, 0, 700, 2}, 21, 100);
    append_grouped_weight_grad(cases, 3, {1, 0, 0, 0, 130, 7}, 24, 264);
    append_grouped_weight_grad(cases, 3, {1, 0, 0, 0, 130, 7}, 24, 264, true);
    append_grouped_weight_grad(cases, 2, {0, 0}, 5, 7, true);
    append_grouped_weight_grad(cases, 3, {3, 0, 1}, 19, 9, true);
    append_grouped_weight_grad(cases, 2, {1, 0, 5, 0, 700, 2}, 21, 100, true);
    append_grouped_weight_grad(cases, 7, {3, 1, 0, 2, 1, 1, 2}, 600,
                               800);  // more than fit in a back end's room at once
    for (const bool trans_b : {false, true}) {
        append_packed(cases, 1, 0, 5, 7, trans_b);
        append_packed(cases, 1, 1, 1, 1, trans_b);
        append_packed(cases, 1, 150, 50, 97, trans_b);
        append_packed(cases, 3, 9, 64, 530, trans_b);
        append_packed(cases, 1, 3, 590, 21, trans_b);  // several slices of columns
        append_packed(cases, 1, 3, 30, kSeveralPieces, trans_b);
    }
}

}  // namespace moesaic::conformance
