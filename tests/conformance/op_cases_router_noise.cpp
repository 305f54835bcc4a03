// Cases of routers' noise, of prototypes, and of the bias that balances.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}

double softplus(double x) {
    return std::log1p(std::exp(x));
}

void append_random(std::vector<OpCase>& cases, i64 count) {
    for (const bool is_normal : {true, false}) {
        const Philox random(3, "noise");
        cases.push_back({.name = fmt::format("random_fill {} {}", is_normal ? "normal" : "uniform", count),
                         .buffers = {real(output("values", {count}))},
                         .run =
                             [=](Backend& b, Stream& s, Views v) {
                                 b.random_fill(s, {.random = random,
                                                   .first = 1000,
                                                   .normal = is_normal,
                                                   .low = -2,
                                                   .high = 4,
                                                   .values = v[0]});
                             },
                         .reference =
                             [=](Values& v) {
                                 for (u64 i = 0; i < v[0].size(); ++i)
                                     v[0][i] = is_normal ? random.normal(1000 + i)
                                                         : -2 + 6 * random.uniform(1000 + i);
                             },
                         .tolerance_f32 = 1e-7,
                         .tolerance_f64 = 1e-15,  // a GPU's sine and logarithm are not the host's
                         .row_unit = 0});
    }
}

void append_multiply(std::vector<OpCase>& cases, i64 rows, i64 columns, bool accumulate) {
    const Shape shape{rows, columns};
    cases.push_back(
        {.name = fmt::format("multiply_elements {}x{}{}", rows, columns, accumulate ? " accumulate" : ""),
         .buffers = {by_row(normal("x", shape)), by_row(real(normal("factor", shape))),
                     by_row(written(normal("y", shape)))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.multiply_elements(s, {.x = v[0], .factor = v[1], .y = v[2], .accumulate = accumulate});
             },
         .reference =
             [=](Values& v) {
                 for (std::size_t i = 0; i < v[2].size(); ++i)
                     v[2][i] = (accumulate ? v[2][i] : 0) + v[0][i] * v[1][i];
             },
         .tolerance_f32 = 1e-6});
}

void append_noisy_logits(std::vector<OpCase>& cases, i64 rows, i64 experts) {
    const Shape shape{rows, experts};
    const std::string size = fmt::format(" {}x{}", rows, experts);
    cases.push_back(
        {.name = "noisy_logits" + size,
         .buffers = {by_row(real(normal("clean", shape))), by_row(real(normal("spread", shape, 4))),
                     by_row(real(normal("noise", shape))), by_row(real(output("logits", shape)))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.noisy_logits(s, {.clean = v[0], .spread = v[1], .noise = v[2], .logits = v[3]});
             },
         .reference =
             [](Values& v) {
                 for (std::size_t i = 0; i < v[0].size(); ++i)
                     v[3][i] = v[0][i] + v[2][i] * softplus(v[1][i]);
             },
         .tolerance_f32 = 1e-6});
    cases.push_back(
        {.name = "noisy_logits_backward" + size,
         .buffers = {by_row(real(normal("spread", shape, 4))), by_row(real(normal("noise", shape))),
                     by_row(real(normal("d_logits", shape))), by_row(written(real(normal("d_clean", shape)))),
                     by_row(written(real(normal("d_spread", shape)))), by_row(real(normal("clean", shape)))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.noisy_logits_backward(
                     s, {.spread = v[0], .noise = v[1], .d_logits = v[2], .d_clean = v[3], .d_spread = v[4]});
             },
         .reference =
             [](Values& v) {
                 for (std::size_t i = 0; i < v[0].size(); ++i) {
                     v[3][i] += v[2][i];
                     v[4][i] += v[2][i] * v[1][i] * sigmoid(v[0][i]);
                 }
             },
         .tolerance_f32 = 1e-6,
         .objective =
             [](Backend& b, Stream& s, Views v) {
                 Tensor logits = b.allocate(v[0].shape, DType::f64);
                 b.noisy_logits(s, {.clean = v[5], .spread = v[0], .noise = v[1], .logits = logits});
                 return dot(s, logits, v[2]);
             },
         .gradients = {{0, 4, true}, {5, 3, true}}});
}

/// The K+1 experts with the largest noisy logits.
Buffer ranked_of(const Buffer& logits, i64 choices) {
    const i64 rows = logits.shape.rows(), experts = logits.shape.cols();
    std::vector<double> ranked;
    for (i64 row = 0; row < rows; ++row) {
        for (const i64 expert : best_of(row_of(logits.values, row, experts), choices + 1))
            ranked.push_back(static_cast<double>(expert));
    }
    return by_row(filled("ranked", {rows, choices + 1}, ranked, Storage::int32));
}

/// The other experts' K-th largest logit, found without a ranking.
double threshold_of(const std::vector<double>& logits, i64 expert, i64 choices) {
    std::vector<double> others = logits;
    others.erase(others.begin() + expert);
    std::sort(others.begin(), others.end(), std::greater<>());
    return others[at(choices - 1)];
}

/// Of every fifth expert so small that no noise is left, in any type.
Buffer some_without_noise(Shape shape) {
    Buffer spread = normal("spread", shape);
    for (std::size_t i = 2; i < spread.values.size(); i += 5) spread.values[i] = -1000;
    return by_row(real(spread));
}

void append_noisy_load(std::vector<OpCase>& cases, i64 rows, i64 experts, i64 choices) {
    const Shape shape{rows, experts};
    const Buffer logits = by_row(real(normal("logits", shape)));
    Buffer clean = normal("clean", shape);
    if (rows > 0 && experts > 2)  // a tie without noise
        clean.values[2] = threshold_of(row_of(logits.values, 0, experts), 2, choices);
    cases.push_back(
        {.name = fmt::format("noisy_load {} of {}x{}", choices, rows, experts),
         .buffers = {by_row(real(clean)), some_without_noise(shape), logits, ranked_of(logits, choices),
                     by_row(real(output("probability", shape)))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.noisy_load(
                     s, {.clean = v[0], .spread = v[1], .logits = v[2], .ranked = v[3], .probability = v[4]});
             },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < rows * experts; ++i) {
                     const double rival =
                         threshold_of(row_of(v[2], i / experts, experts), i % experts, choices);
                     const double ahead = v[0][at(i)] - rival;
                     const double z = ahead == 0 ? 0 : ahead / softplus(v[1][at(i)]);
                     v[4][at(i)] = 0.5 * (1 + std::erf(z / std::sqrt(2.0)));
                 }
             },
         .tolerance_f32 = 2e-6});
}

/// Where the factor of element i of [rows, experts] stands, with objects of `rows_per_object` rows.
std::size_t factor_at(i64 i, i64 experts, i64 rows_per_object) {
    return at(i / experts / rows_per_object * experts + i % experts);
}

void noisy_load_grad_reference(Values& v, i64 experts, i64 choices, i64 rows_per_object) {
    for (i64 i = 0; i < std::ssize(v[0]); ++i) {
        const std::vector<double> row = row_of(v[2], i / experts, experts);
        const double rival = threshold_of(row, i % experts, choices);
        const double deviation = softplus(v[1][at(i)]);
        if (deviation == 0) continue;
        const double z = (v[0][at(i)] - rival) / deviation;
        const double density = std::exp(-z * z / 2) / std::sqrt(2 * std::numbers::pi);
        const double slope = v[4][factor_at(i, experts, rows_per_object)] * density / deviation;
        const auto where = std::find(row.begin(), row.end(), rival) - row.begin();
        v[5][at(i)] += slope;
        v[6][at(i)] -= slope * z * sigmoid(v[1][at(i)]);
        v[7][at(i / experts * experts + where)] -= slope;
    }
}

void append_noisy_load_grad(std::vector<OpCase>& cases, i64 rows, i64 experts, i64 choices) {
    const Shape shape{rows, experts};
    const Buffer logits = by_row(real(normal("logits", shape)));
    const i64 rows_per_object = std::max<i64>((rows + 2) / 3, 1);
    const i64 objects = std::max<i64>((rows + rows_per_object - 1) / rows_per_object, 1);
    Buffer factor = normal("factor", {objects, experts});
    factor.storage = Storage::f64;
    cases.push_back(
        {.name = fmt::format("noisy_load_backward {} of {}x{}", choices, rows, experts),
         .buffers = {by_row(real(normal("clean", shape))), some_without_noise(shape), logits,
                     ranked_of(logits, choices), factor, by_row(written(real(normal("d_clean", shape)))),
                     by_row(written(real(normal("d_spread", shape)))),
                     by_row(written(real(normal("d_logits", shape))))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.noisy_load_backward(s, {.clean = v[0],
                                           .spread = v[1],
                                           .logits = v[2],
                                           .ranked = v[3],
                                           .factor = v[4],
                                           .rows_per_object = rows_per_object,
                                           .d_clean = v[5],
                                           .d_spread = v[6],
                                           .d_logits = v[7]});
             },
         .reference = [=](Values& v) { noisy_load_grad_reference(v, experts, choices, rows_per_object); },
         .tolerance_f32 = 1e-5,
         .row_unit = 0,
         .objective =
             [=](Backend& b, Stream& s, Views v) {
                 Tensor probability = b.allocate(v[0].shape, DType::f64);
                 b.noisy_load(s, {.clean = v[0],
                                  .spread = v[1],
                                  .logits = v[2],
                                  .ranked = v[3],
                                  .probability = probability});
                 std::vector<double> factors(at(rows * experts));
                 for (i64 i = 0; i < rows * experts; ++i)
                     factors[at(i)] = v[4].as<double>()[factor_at(i, experts, rows_per_object)];
                 return dot(s, probability, view_of(factors.data(), v[0].shape));
             },
         .gradients = {{0, 5, true}, {1, 6, true}, {2, 7, true}}});
}

void append_prototypes(std::vector<OpCase>& cases, i64 rows, i64 experts, i64 width) {
    const std::string size = fmt::format(" {}x{} by {}", rows, experts, width);
    const Buffer x = by_row(normal("x", {rows, width})), prototype = normal("prototype", {experts, width});
    cases.push_back(
        {.name = "prototype_logits" + size,
         .buffers = {x, prototype, by_row(real(output("logits", {rows, experts})))},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.prototype_logits(s, {.x = v[0], .prototype = v[1], .logits = v[2]}); },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < rows * experts; ++i) {
                     double sum = 0;
                     for (i64 j = 0; j < width; ++j) {
                         const double difference =
                             v[0][at(i / experts * width + j)] - v[1][at(i % experts * width + j)];
                         sum += difference * difference;
                     }
                     v[2][at(i)] = -sum;
                 }
             },
         .tolerance_f32 = 1e-5});
    cases.push_back(
        {.name = "prototype_logits_backward" + size,
         .buffers = {x, prototype, by_row(real(normal("d_logits", {rows, experts}))),
                     by_row(written(normal("dx", {rows, width}))),
                     written(real(normal("d_prototype", {experts, width})))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.prototype_logits_backward(
                     s, {.x = v[0], .prototype = v[1], .d_logits = v[2], .dx = v[3], .d_prototype = v[4]});
             },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < rows * experts; ++i) {
                     for (i64 j = 0; j < width; ++j) {
                         const std::size_t here = at(i / experts * width + j),
                                           there = at(i % experts * width + j);
                         const double slope = 2 * v[2][at(i)] * (v[0][here] - v[1][there]);
                         v[3][here] -= slope;
                         v[4][there] += slope;
                     }
                 }
             },
         .tolerance_f32 = 1e-4,
         .tolerance_f64 = 1e-12,
         .objective =
             [](Backend& b, Stream& s, Views v) {
                 Tensor logits = b.allocate(v[2].shape, DType::f64);
                 b.prototype_logits(s, {.x = v[0], .prototype = v[1], .logits = logits});
                 return dot(s, logits, v[2]);
             },
         .gradients = {{0, 3, true}, {1, 4, true}}});
}

void append_balance_bias(std::vector<OpCase>& cases, i64 experts, bool recentre) {
    std::vector<double> counts(at(experts));
    for (i64 e = 0; e < experts; ++e) counts[at(e)] = static_cast<double>(e * 7 % 5);
    cases.push_back({.name = fmt::format("balance_bias {}{}", experts, recentre ? " recentred" : ""),
                     .buffers = {filled("counts", {experts}, counts, Storage::int64),
                                 written(real(normal("bias", {experts})))},
                     .run =
                         [=](Backend& b, Stream& s, Views v) {
                             b.balance_bias(
                                 s, {.counts = v[0], .rate = 0.25, .recentre = recentre, .bias = v[1]});
                         },
                     .reference =
                         [=](Values& v) {
                             const auto size = static_cast<double>(experts);
                             const double mean = std::accumulate(v[0].begin(), v[0].end(), 0.0) / size;
                             for (std::size_t e = 0; e < v[0].size(); ++e)
                                 v[1][e] += v[0][e] < mean ? 0.25 : v[0][e] > mean ? -0.25 : 0;
                             const double centre = std::accumulate(v[1].begin(), v[1].end(), 0.0) / size;
                             for (double& bias : v[1]) bias -= recentre ? centre : 0;
                         },
                     .tolerance_f32 = 1e-6,
                     .row_unit = 0});
}

}  // namespace

void append_router_noise_cases(std::vector<OpCase>& cases) {
    append_random(cases, 0);
    append_random(cases, 5000);
    for (const bool accumulate : {false, true}) {
        append_multiply(cases, 0, 4, accumulate);
        append_multiply(cases, 9, 7, accumulate);
        append_multiply(cases, 400, 64, accumulate);
    }
    append_noisy_logits(cases, 0, 4);
    append_noisy_logits(cases, 6, 5);
    append_noisy_logits(cases, 300, 64);
    append_noisy_load(cases, 0, 4, 2);
    append_noisy_load_grad(cases, 0, 4, 2);
    append_noisy_load(cases, 6, 2, 1);
    append_noisy_load_grad(cases, 6, 2, 1);
    append_noisy_load(cases, 12, 5, 2);
    append_noisy_load_grad(cases, 12, 5, 2);
    append_noisy_load(cases, 300, 64, 8);
    append_noisy_load_grad(cases, 300, 64, 8);
    append_prototypes(cases, 0, 3, 4);
    append_prototypes(cases, 5, 1, 3);
    append_prototypes(cases, 9, 4, 7);
    append_prototypes(cases, 200, 16, 32);
    for (const bool recentre : {false, true}) {
        append_balance_bias(cases, 1, recentre);
        append_balance_bias(cases, 9, recentre);
    }
}

}  // namespace moesaic::conformance
