// Cases of the softmax, the cross entropy and the squared error.
#include <algorithm>
#include <cmath>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

constexpr double kFactor = 0.25;  // of the gradients, as 1/tokens is

double log_sum_exp(const double* row, i64 columns) {
    const double largest = *std::max_element(row, row + columns);
    double sum = 0;
    for (i64 i = 0; i < columns; ++i) sum += std::exp(row[i] - largest);
    return largest + std::log(sum);
}

void append_softmax(std::vector<OpCase>& cases, i64 rows, i64 columns) {
    const Shape shape{rows, columns};
    cases.push_back(
        {.name = fmt::format("row_softmax {}x{}", rows, columns),
         .buffers = {by_row(real(normal("logits", shape, 3))), by_row(real(output("probability", shape))),
                     by_row(real(output("log_sum_exp", {rows})))},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.row_softmax(s, {.logits = v[0], .probability = v[1], .log_sum_exp = v[2]}); },
         .reference =
             [=](Values& v) {
                 for (i64 row = 0; row < rows; ++row) {
                     v[2][at(row)] = log_sum_exp(v[0].data() + row * columns, columns);
                     for (i64 i = row * columns; i < (row + 1) * columns; ++i) {
                         v[1][at(i)] = std::exp(v[0][at(i)] - v[2][at(row)]);
                     }
                 }
             },
         .tolerance_f32 = 1e-6});
}

void append_cross_entropy(std::vector<OpCase>& cases, i64 rows, i64 vocabulary, double scale) {
    const Shape shape{rows, vocabulary};
    cases.push_back(
        {.name = fmt::format("cross_entropy {}x{} scale {}", rows, vocabulary, scale),
         .buffers = {by_row(real(normal("logits", shape, scale))),
                     by_row(integers("target", {rows}, -1, vocabulary)),
                     by_row(output("loss", {rows}, Storage::f64)),
                     by_row(output("log_sum_exp", {rows}, Storage::f64))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.cross_entropy(s, {.logits = v[0], .target = v[1], .loss = v[2], .log_sum_exp = v[3]});
             },
         .reference =
             [=](Values& v) {
                 for (i64 row = 0; row < rows; ++row) {
                     v[3][at(row)] = log_sum_exp(v[0].data() + row * vocabulary, vocabulary);
                     const auto target = static_cast<i64>(v[1][at(row)]);
                     v[2][at(row)] = target < 0 ? 0 : v[3][at(row)] - v[0][at(row * vocabulary + target)];
                 }
             },
         .tolerance_f32 = 3e-7});
}

/// No target is masked: infinities are no number to compare; a masked one is in MarginOfMaskedRows.
void append_margin(std::vector<OpCase>& cases, i64 rows, i64 vocabulary, double scale) {
    cases.push_back({.name = fmt::format("cross_entropy margin {}x{} scale {}", rows, vocabulary, scale),
                     .buffers = {by_row(real(normal("logits", {rows, vocabulary}, scale))),
                                 by_row(integers("target", {rows}, 0, vocabulary)),
                                 by_row(output("loss", {rows}, Storage::f64)),
                                 by_row(output("log_sum_exp", {rows}, Storage::f64)),
                                 by_row(output("margin", {rows}, Storage::f64)),
                                 by_row(output("wrong", {rows}, Storage::int32))},
                     .run =
                         [](Backend& b, Stream& s, Views v) {
                             b.cross_entropy(s, {.logits = v[0],
                                                 .target = v[1],
                                                 .loss = v[2],
                                                 .log_sum_exp = v[3],
                                                 .wrong = v[5],
                                                 .margin = v[4]});
                         },
                     .reference =
                         [=](Values& v) {
                             for (i64 row = 0; row < rows; ++row) {
                                 std::vector<double> logits = row_of(v[0], row, vocabulary);
                                 v[3][at(row)] = log_sum_exp(logits.data(), vocabulary);
                                 const auto target = static_cast<std::ptrdiff_t>(v[1][at(row)]);
                                 const double right = logits[at(target)];
                                 v[2][at(row)] = v[3][at(row)] - right;
                                 logits.erase(logits.begin() + target);
                                 v[4][at(row)] = right - *std::max_element(logits.begin(), logits.end());
                                 v[5][at(row)] = v[4][at(row)] > 0 ? 0 : 1;
                             }
                         },
                     .tolerance_f32 = 3e-7});
}

void cross_entropy_grad_reference(Values& v, i64 vocabulary, double factor, std::size_t to) {
    for (std::size_t row = 0; row < v[1].size(); ++row) {
        const auto target = static_cast<i64>(v[1][row]);
        for (i64 column = 0; column < vocabulary; ++column) {
            const std::size_t i = row * at(vocabulary) + at(column);
            const double probability = std::exp(v[0][i] - v[2][row]);
            v[to][i] = target < 0 ? 0 : factor * (probability - (column == target ? 1 : 0));
        }
    }
}

void append_cross_entropy_grad(std::vector<OpCase>& cases, i64 rows, i64 vocabulary, bool in_place) {
    const Shape shape{rows, vocabulary};
    const std::size_t to = in_place ? 0 : 3;
    const Buffer logits = normal("logits", shape, 3);
    std::vector<double> sums;
    for (i64 row = 0; row < rows; ++row) {
        sums.push_back(log_sum_exp(logits.values.data() + row * vocabulary, vocabulary));
    }
    cases.push_back(
        {.name = fmt::format("cross_entropy_backward {}x{}{}", rows, vocabulary, in_place ? " in place" : ""),
         .buffers = {by_row(written(real(logits))), by_row(integers("target", {rows}, -1, vocabulary)),
                     by_row(filled("log_sum_exp", {rows}, sums, Storage::f64)),
                     by_row(real(output("d_logits", shape)))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.cross_entropy_backward(s, {.logits = v[0],
                                              .target = v[1],
                                              .log_sum_exp = v[2],
                                              .d_logits = v[to],
                                              .scale = kFactor});
             },
         .reference = [=](Values& v) { cross_entropy_grad_reference(v, vocabulary, kFactor, to); },
         .tolerance_f32 = 1e-6,
         .objective =
             [](Backend& b, Stream& s, Views v) {
                 Tensor loss = b.allocate(v[1].shape, DType::f64), sum = b.allocate(v[1].shape, DType::f64);
                 b.cross_entropy(s, {.logits = v[0], .target = v[1], .loss = loss, .log_sum_exp = sum});
                 const std::vector<double> ones(at(loss.elements()), kFactor);
                 return dot(s, loss, view_of(ones.data(), v[1].shape));
             },
         .gradients = {{0, to}}});
}

void append_squared_error(std::vector<OpCase>& cases, i64 rows, i64 outputs) {
    const Shape shape{rows, outputs};
    const Buffer target = by_row(filled("target", shape, normal("target", shape).values, Storage::f64));
    const Buffer output_rows = by_row(real(normal("output", shape, 3)));
    cases.push_back(
        {.name = fmt::format("squared_error {}x{}", rows, outputs),
         .buffers = {output_rows, target, by_row(output("loss", {rows}, Storage::f64))},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.squared_error(s, {.output = v[0], .target = v[1], .loss = v[2]}); },
         .reference =
             [=](Values& v) {
                 for (std::size_t row = 0; row < v[2].size(); ++row) {
                     v[2][row] = 0;
                     for (std::size_t i = row * at(outputs); i < (row + 1) * at(outputs); ++i)
                         v[2][row] += std::pow(v[0][i] - v[1][i], 2) / static_cast<double>(outputs);
                 }
             },
         .tolerance_f32 = 1e-13});
    cases.push_back({.name = fmt::format("squared_error_backward {}x{}", rows, outputs),
                     .buffers = {output_rows, target, by_row(real(output("d_output", shape)))},
                     .run =
                         [](Backend& b, Stream& s, Views v) {
                             b.squared_error_backward(
                                 s, {.output = v[0], .target = v[1], .d_output = v[2], .scale = kFactor});
                         },
                     .reference =
                         [=](Values& v) {
                             for (std::size_t i = 0; i < v[2].size(); ++i)
                                 v[2][i] = kFactor * 2 * (v[0][i] - v[1][i]) / static_cast<double>(outputs);
                         },
                     .tolerance_f32 = 1e-6,
                     .objective =
                         [=](Backend& b, Stream& s, Views v) {
                             Tensor loss = b.allocate({rows}, DType::f64);
                             b.squared_error(s, {.output = v[0], .target = v[1], .loss = loss});
                             const std::vector<double> ones(at(rows), kFactor);
                             return dot(s, loss, view_of(ones.data(), {rows}));
                         },
                     .gradients = {{0, 2}}});
}

}  // namespace

void append_loss_cases(std::vector<OpCase>& cases) {
    struct Sizes {
        i64 rows, columns;
    };
    for (const Sizes& sizes :
         {Sizes{0, 8}, {1, 1}, {7, 8}, {5, 33}, {600, 64}, {6, 256}, {6, 300}, {2, 1024}, {10, 5003}}) {
        append_softmax(cases, sizes.rows, sizes.columns);
        append_cross_entropy(cases, sizes.rows, sizes.columns, 1);
        append_cross_entropy(cases, sizes.rows, sizes.columns, 40);
        if (sizes.columns > 1) {
            append_margin(cases, sizes.rows, sizes.columns, 3);
            append_margin(cases, sizes.rows, sizes.columns, 0);  // all logits tie
        }
        append_cross_entropy_grad(cases, sizes.rows, sizes.columns, false);
        append_cross_entropy_grad(cases, sizes.rows, sizes.columns, true);
    }
    for (const Sizes& sizes : {Sizes{0, 2}, {1, 1}, {7, 3}, {300, 64}})
        append_squared_error(cases, sizes.rows, sizes.columns);
}

}  // namespace moesaic::conformance
