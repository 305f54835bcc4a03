// Cases of the element-wise operations and of the optimizer.
#include <algorithm>
#include <cmath>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

constexpr double kLimit = 0.7;  // no bf16, and the nearest is smaller

void append_simple(std::vector<OpCase>& cases, i64 rows, i64 width) {
    const std::string size = fmt::format(" {}x{}", rows, width);
    const Shape shape{rows, width};
    cases.push_back({.name = "copy" + size,
                     .buffers = {by_row(normal("from", shape)), by_row(output("to", shape))},
                     .run = [](Backend& b, Stream& s, Views v) { b.copy(s, v[0], v[1]); },
                     .reference = [](Values& v) { v[1] = v[0]; },
                     .tolerance_f32 = 0,
                     .tolerance_f64 = 0});
    cases.push_back({.name = "zero" + size,
                     .buffers = {by_row(output("y", shape))},
                     .run = [](Backend& b, Stream& s, Views v) { b.zero(s, v[0]); },
                     .reference = [](Values& v) { std::fill(v[0].begin(), v[0].end(), 0.0); },
                     .tolerance_f32 = 0,
                     .tolerance_f64 = 0});
    cases.push_back({.name = "add" + size,
                     .buffers = {by_row(normal("x", shape)), by_row(written(normal("y", shape)))},
                     .run = [](Backend& b, Stream& s, Views v) { b.add(s, v[0], v[1]); },
                     .reference =
                         [](Values& v) {
                             for (std::size_t i = 0; i < v[0].size(); ++i) v[1][i] += v[0][i];
                         },
                     .tolerance_f32 = 1e-7,
                     .tolerance_f64 = 0});
    cases.push_back({.name = "scale" + size,
                     .buffers = {by_row(written(normal("y", shape)))},
                     .run = [](Backend& b, Stream& s, Views v) { b.scale(s, -0.75, v[0]); },
                     .reference =
                         [](Values& v) {
                             for (double& y : v[0]) y *= -0.75;
                         },
                     .tolerance_f32 = 1e-7,
                     .tolerance_f64 = 0});
}

void append_conversions(std::vector<OpCase>& cases, i64 rows, i64 width) {
    const std::string size = fmt::format(" {}x{}", rows, width);
    const Shape shape{rows, width};
    cases.push_back({.name = "convert real to stored" + size,
                     .buffers = {by_row(real(normal("from", shape))), by_row(output("to", shape))},
                     .run = [](Backend& b, Stream& s, Views v) { b.convert(s, v[0], v[1]); },
                     .reference = [](Values& v) { v[1] = v[0]; },
                     .tolerance_f32 = 0,
                     .tolerance_f64 = 0});
    cases.push_back({.name = "convert stored to real" + size,
                     .buffers = {by_row(normal("from", shape)), by_row(real(output("to", shape)))},
                     .run = [](Backend& b, Stream& s, Views v) { b.convert(s, v[0], v[1]); },
                     .reference = [](Values& v) { v[1] = v[0]; },
                     .tolerance_f32 = 0,
                     .tolerance_f64 = 0});
    cases.push_back({.name = "convert from f64" + size,
                     .buffers = {by_row(filled("from", shape, normal("from", shape).values, Storage::f64)),
                                 by_row(real(output("to", shape)))},
                     .run = [](Backend& b, Stream& s, Views v) { b.convert(s, v[0], v[1]); },
                     .reference = [](Values& v) { v[1] = v[0]; },
                     .tolerance_f32 = 6e-8,
                     .tolerance_f64 = 0});
    cases.push_back(
        {.name = "fold" + size,
         .buffers = {by_row(written(real(normal("part", shape)))),
                     by_row(written(filled("sum", shape, normal("sum", shape).values, Storage::f64)))},
         .run = [](Backend& b, Stream& s, Views v) { b.fold(s, v[0], v[1], {}); },
         .reference =
             [](Values& v) {
                 for (std::size_t i = 0; i < v[0].size(); ++i) {
                     v[1][i] += v[0][i];
                     v[0][i] = 0;
                 }
             },
         .tolerance_f32 = 1e-15,
         .tolerance_f64 = 1e-15});
}

/// Whatever the order, the same bits: the back end adds parts of very different sizes in one, the reference
/// in another.
void append_exact_fold(std::vector<OpCase>& cases, i64 rows, i64 width) {
    const std::string size = fmt::format(" {}x{}", rows, width);
    const Shape shape{rows, width};
    const FoldRounding rounding{0x1p-43, 256.0 / 3};
    cases.push_back(
        {.name = "fold exactly" + size,
         .buffers = {by_row(written(real(normal("large", shape, 16)))),
                     by_row(written(real(normal("small", shape, 1e-12)))),
                     by_row(written(real(normal("part", shape)))),
                     by_row(written(
                         filled("sum", shape, std::vector<double>(at(rows * width), 0.5), Storage::f64)))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 for (const std::size_t i : {0U, 1U, 2U}) b.fold(s, v[i], v[3], rounding);
             },
         .reference =
             [=](Values& v) {
                 for (const std::size_t part : {2U, 0U, 1U}) {
                     for (std::size_t i = 0; i < v[3].size(); ++i) {
                         v[3][i] += std::nearbyint(v[part][i] / rounding.step) * rounding.step;
                         v[part][i] = 0;
                     }
                 }
             },
         .tolerance_f32 = 0,
         .tolerance_f64 = 0});
}

void append_clamp(std::vector<OpCase>& cases, i64 rows, i64 width) {
    const std::string size = fmt::format(" {}x{}", rows, width);
    const Shape shape{rows, width};
    cases.push_back({.name = "clamp" + size,
                     .buffers = {by_row(written(normal("y", shape)))},
                     .run = [](Backend& b, Stream& s, Views v) { b.clamp(s, kLimit, v[0]); },
                     .reference =
                         [](Values& v) {
                             for (double& y : v[0]) y = std::min(std::max(y, -kLimit), kLimit);
                         },
                     .tolerance_f32 = 1e-7,
                     .tolerance_f64 = 0});
    Buffer x = normal("x", shape);
    for (double& one : x.values) {
        if (std::abs(std::abs(one) - kLimit) < 0.01) one = 0;  // in every type on the same side
    }
    Buffer clamped = written(x);
    clamped.name = "y";
    // Together, as clamp alone knows which elements it has changed.
    cases.push_back({.name = "clamp, clamp_grad" + size,
                     .buffers = {by_row(clamped), by_row(written(normal("dy", shape))), by_row(x)},
                     .run =
                         [](Backend& b, Stream& s, Views v) {
                             b.clamp(s, kLimit, v[0]);
                             b.clamp_grad(s, kLimit, v[0], v[1]);
                         },
                     .reference =
                         [](Values& v) {
                             for (std::size_t i = 0; i < v[0].size(); ++i) {
                                 if (std::abs(v[0][i]) >= kLimit) v[1][i] = 0;
                                 v[0][i] = std::clamp(v[0][i], -kLimit, kLimit);
                             }
                         },
                     .tolerance_f32 = 1e-7,
                     .tolerance_f64 = 0,
                     .objective =
                         [](Backend& b, Stream& s, Views v) {
                             Tensor y = b.allocate(v[2].shape, DType::f64);
                             b.copy(s, v[2], y);
                             b.clamp(s, kLimit, y);
                             return dot(s, y, v[1]);
                         },
                     .gradients = {{2, 1}}});
}

void append_adamw(std::vector<OpCase>& cases, i64 count, i64 step) {
    const double lr = 3e-3, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1, grad_scale = 0.4;
    const auto update = [=](Backend& b, Stream& s, Views v, TensorView rounded) {
        b.adamw(s, {.parameter = v[0],
                    .first_moment = v[1],
                    .second_moment = v[2],
                    .gradient = v[3],
                    .rounded = rounded,
                    .lr = lr,
                    .beta1 = beta1,
                    .beta2 = beta2,
                    .eps = eps,
                    .weight_decay = weight_decay,
                    .grad_scale = grad_scale,
                    .step = step});
    };
    Buffer second = normal("second_moment", {count});
    for (double& value : second.values) value *= value;
    cases.push_back(
        {.name = fmt::format("adamw {} step {}", count, step),
         .buffers = {by_row(written(real(normal("parameter", {count})))),
                     by_row(written(real(normal("first_moment", {count})))), by_row(written(real(second))),
                     by_row(real(normal("gradient", {count}))), by_row(output("rounded", {count}))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 const bool rounds = v[4].dtype == DType::bf16;
                 update(b, s, v, rounds ? v[4] : TensorView());
                 if (!rounds) b.convert(s, v[0], v[4]);
             },
         .reference =
             [=](Values& v) {
                 const double correction1 = 1 - std::pow(beta1, step),
                              correction2 = 1 - std::pow(beta2, step);
                 for (std::size_t i = 0; i < v[0].size(); ++i) {
                     const double g = grad_scale * v[3][i];
                     v[0][i] *= 1 - lr * weight_decay;
                     v[1][i] = beta1 * v[1][i] + (1 - beta1) * g;
                     v[2][i] = beta2 * v[2][i] + (1 - beta2) * g * g;
                     v[0][i] -=
                         lr / correction1 * v[1][i] / (std::sqrt(v[2][i]) / std::sqrt(correction2) + eps);
                 }
                 v[4] = v[0];
             },
         .tolerance_f32 = 1e-6,
         .same_bits =
             [=](Backend& b, Stream& s, Views v) {
                 update(b, s, v, {});
                 b.convert(s, v[0], v[4]);
             }});
}

void append_block_sums(std::vector<OpCase>& cases, i64 count, i64 block) {
    const i64 blocks = (count + block - 1) / block;
    cases.push_back(
        {.name = fmt::format("block_sum_squares {} by {}", count, block),
         .buffers = {real(normal("values", {count})), output("sums", {blocks}, Storage::f64)},
         .run = [=](Backend& b, Stream& s, Views v) { b.block_sum_squares(s, v[0], block, v[1]); },
         .reference =
             [=](Values& v) {
                 std::fill(v[1].begin(), v[1].end(), 0.0);
                 for (i64 i = 0; i < count; ++i) v[1][at(i / block)] += v[0][at(i)] * v[0][at(i)];
             },
         .tolerance_f32 = 1e-13,
         .row_unit = 0});
}

}  // namespace

void append_elementwise_cases(std::vector<OpCase>& cases) {
    for (const auto& [rows, width] :
         std::initializer_list<std::pair<i64, i64>>{{0, 5}, {1, 1}, {3, 7}, {5, 64}, {61, 677}}) {
        append_simple(cases, rows, width);
        append_conversions(cases, rows, width);
        append_exact_fold(cases, rows, width);
        append_clamp(cases, rows, width);
    }
    for (const i64 count : {0, 1, 37, 64, 40001}) {
        append_adamw(cases, count, 1);
        append_adamw(cases, count, 1000);
    }
    append_block_sums(cases, 0, 16);
    append_block_sums(cases, 5, 16);
    append_block_sums(cases, 4096, 1024);
    append_block_sums(cases, 70001, 1000);
    append_block_sums(cases, 10001, 4096);
    append_block_sums(cases, 5003, 1217);
}

}  // namespace moesaic::conformance
