// Cases of routers' scores and of what is chosen by them.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}

struct Groups {
    i64 groups = 1, top = 1;
    GroupScore score = GroupScore::top1;
};

void append_biased_top_k(std::vector<OpCase>& cases, i64 rows, i64 experts, i64 choices, Groups groups,
                         bool bias) {
    const auto reference = [=](Values& v) {
        const i64 size = experts / groups.groups;
        for (i64 row = 0; row < rows; ++row) {
            std::vector<double> scores = row_of(v[0], row, experts), group_scores;
            for (i64 e = 0; e < experts && bias; ++e) scores[at(e)] += v[1][at(e)];
            for (i64 group = 0; group < groups.groups; ++group) {
                std::vector<double> members = row_of(scores, group, size);
                std::sort(members.begin(), members.end(), std::greater<>());
                const bool two = groups.score == GroupScore::top2_sum && size > 1;
                group_scores.push_back(two ? members[0] + members[1] : members[0]);
            }
            const std::vector<i64> kept = best_of(group_scores, groups.top);
            for (i64 e = 0; e < experts; ++e) {
                if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) scores[at(e)] = -1e30;
            }
            const std::vector<i64> best = best_of(scores, choices);
            for (i64 k = 0; k < choices; ++k) {
                v[2][at(row * choices + k)] = static_cast<double>(best[at(k)]);
                v[3][at(row * choices + k)] = v[0][at(row * experts + best[at(k)])];
            }
        }
    };
    cases.push_back(
        {.name = fmt::format("top_k {} of {}x{} in {} of {} groups{}", choices, rows, experts, groups.top,
                             groups.groups, bias ? " biased" : ""),
         .buffers = {by_row(real(normal("scores", {rows, experts}))), real(normal("bias", {experts})),
                     by_row(output("index", {rows, choices}, Storage::int32)),
                     by_row(real(output("value", {rows, choices})))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.top_k(s, {.scores = v[0],
                             .index = v[2],
                             .value = v[3],
                             .bias = bias ? ConstTensorView(v[1]) : ConstTensorView(),
                             .groups = groups.groups,
                             .top_groups = groups.top,
                             .group_score = groups.score});
             },
         .reference = reference,
         .tolerance_f32 = 1e-7,
         .tolerance_f64 = 0});
}

void append_weights(std::vector<OpCase>& cases, i64 rows, i64 experts, i64 choices) {
    const std::string size = fmt::format(" {} of {}x{}", choices, rows, experts);
    cases.push_back(
        {.name = "gather_choices" + size,
         .buffers = {by_row(real(normal("scores", {rows, experts}))),
                     by_row(integers("index", {rows, choices}, -1, experts)),
                     by_row(real(output("value", {rows, choices})))},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.gather_choices(s, {.scores = v[0], .index = v[1], .value = v[2]}); },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < rows * choices; ++i) {
                     const auto expert = static_cast<i64>(v[1][at(i)]);
                     v[2][at(i)] = expert < 0 ? 0 : v[0][at(i / choices * experts + expert)];
                 }
             },
         .tolerance_f32 = 1e-7,
         .tolerance_f64 = 0});
    Buffer x = by_row(written(real(normal("x", {rows, choices}))));
    for (double& value : x.values) value = std::abs(value) + 0.01;
    cases.push_back(
        {.name = "normalize_rows" + size,
         .buffers = {x},
         .run = [](Backend& b, Stream& s, Views v) { b.normalize_rows(s, {.x = v[0], .scale = 2.5}); },
         .reference =
             [=](Values& v) {
                 for (i64 row = 0; row < rows; ++row) {
                     const std::vector<double> old = row_of(v[0], row, choices);
                     const double sum = std::accumulate(old.begin(), old.end(), 0.0);
                     for (i64 k = 0; k < choices; ++k) v[0][at(row * choices + k)] = 2.5 * old[at(k)] / sum;
                 }
             },
         .tolerance_f32 = 1e-6});
    cases.push_back({.name = "fill" + size,
                     .buffers = {by_row(real(output("y", {rows, choices})))},
                     .run = [](Backend& b, Stream& s, Views v) { b.fill(s, 0.25, v[0]); },
                     .reference = [](Values& v) { std::fill(v[0].begin(), v[0].end(), 0.25); },
                     .tolerance_f32 = 0,
                     .tolerance_f64 = 0});
}

void append_sigmoid_scores(std::vector<OpCase>& cases, i64 rows, i64 experts) {
    const Shape shape{rows, experts};
    cases.push_back(
        {.name = fmt::format("sigmoid_scores {}x{}", rows, experts),
         .buffers = {by_row(real(normal("logits", shape, 3))), by_row(real(output("score", shape))),
                     by_row(real(output("probability", shape))), by_row(real(output("log_sum_exp", {rows})))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.sigmoid_scores(s,
                                  {.logits = v[0], .score = v[1], .probability = v[2], .log_sum_exp = v[3]});
             },
         .reference =
             [=](Values& v) {
                 for (i64 row = 0; row < rows; ++row) {
                     double scores = 0, exponentials = 0;
                     for (i64 i = row * experts; i < (row + 1) * experts; ++i) {
                         v[1][at(i)] = sigmoid(v[0][at(i)]);
                         scores += v[1][at(i)];
                         exponentials += std::exp(v[0][at(i)]);
                     }
                     for (i64 i = row * experts; i < (row + 1) * experts; ++i)
                         v[2][at(i)] = v[1][at(i)] / scores;
                     v[3][at(row)] = std::log(exponentials);
                 }
             },
         .tolerance_f32 = 1e-6});
}

void append_choose_tokens(std::vector<OpCase>& cases, i64 rows, i64 experts, i64 rows_per_object, i64 take) {
    Buffer scores = normal("scores", {rows, experts});
    for (double& score : scores.values) score = static_cast<double>(static_cast<i64>(score * 3)) / 4;  // ties
    cases.push_back(
        {.name = fmt::format("choose_tokens {} of {} in {}x{}", take, rows_per_object, rows, experts),
         .buffers = {by_row(real(scores)), by_row(output("index", {rows, experts}, Storage::int32))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.choose_tokens(
                     s, {.scores = v[0], .index = v[1], .rows_per_object = rows_per_object, .take = take});
             },
         .reference =
             [=](Values& v) {
                 std::fill(v[1].begin(), v[1].end(), -1.0);
                 for (i64 first = 0; first < rows; first += rows_per_object) {
                     const i64 count = std::min(rows_per_object, rows - first);
                     for (i64 e = 0; e < experts; ++e) {
                         std::vector<double> column;
                         for (i64 t = 0; t < count; ++t)
                             column.push_back(v[0][at((first + t) * experts + e)]);
                         for (const i64 t : best_of(column, std::min(take, count)))
                             v[1][at((first + t) * experts + e)] = static_cast<double>(e);
                     }
                 }
             },
         .tolerance_f32 = 0,
         .tolerance_f64 = 0,
         .row_unit = rows_per_object});
}

/// By the plan itself: rows scaled to 1, then columns to T_o/E.
void sinkhorn_reference(Values& v, i64 rows, i64 experts, i64 rows_per_object, i64 iterations) {
    for (i64 first = 0; first < rows; first += rows_per_object) {
        const i64 count = std::min(rows_per_object, rows - first);
        std::vector<double> column(at(experts), 1.0);
        for (i64 iteration = 0; iteration < iterations; ++iteration) {
            std::vector<double> sums(at(experts), 0.0);
            for (i64 t = first; t < first + count; ++t) {
                double mass = 0;
                for (i64 e = 0; e < experts; ++e) mass += std::exp(v[0][at(t * experts + e)]) * column[at(e)];
                for (i64 e = 0; e < experts; ++e) sums[at(e)] += std::exp(v[0][at(t * experts + e)]) / mass;
            }
            for (i64 e = 0; e < experts; ++e)
                column[at(e)] = static_cast<double>(count) / static_cast<double>(experts) / sums[at(e)];
        }
        for (i64 i = first * experts; i < (first + count) * experts; ++i)
            v[1][at(i)] = v[0][at(i)] + std::log(column[at(i % experts)]);
    }
}

void append_sinkhorn(std::vector<OpCase>& cases, i64 rows, i64 experts, i64 rows_per_object, i64 iterations) {
    const Shape shape{rows, experts};
    Buffer work = output("work", shape, Storage::f64);
    cases.push_back({.name = fmt::format("sinkhorn {}x{} by {}, {} iterations", rows, experts,
                                         rows_per_object, iterations),
                     .buffers = {by_row(real(normal("logits", shape, 2))),
                                 by_row(real(output("scores", shape))), by_row(work)},
                     .run =
                         [=](Backend& b, Stream& s, Views v) {
                             b.sinkhorn(s, {.logits = v[0],
                                            .scores = v[1],
                                            .work = v[2],
                                            .rows_per_object = rows_per_object,
                                            .iterations = iterations});
                         },
                     .reference =
                         [=](Values& v) {
                             sinkhorn_reference(v, rows, experts, rows_per_object, iterations);
                             for (i64 row = 0; row < rows; ++row) {  // what the work holds afterwards
                                 const std::vector<double> logits = row_of(v[0], row, experts);
                                 const double largest = *std::max_element(logits.begin(), logits.end());
                                 for (i64 e = 0; e < experts; ++e)
                                     v[2][at(row * experts + e)] = std::exp(logits[at(e)] - largest);
                             }
                         },
                     .tolerance_f32 = 1e-6,
                     .tolerance_f64 = 1e-12,
                     .row_unit = rows_per_object});
}

}  // namespace

void append_router_cases(std::vector<OpCase>& cases) {
    append_biased_top_k(cases, 0, 8, 2, {4, 2}, true);
    append_biased_top_k(cases, 7, 8, 2, {1, 1}, true);
    append_biased_top_k(cases, 33, 12, 3, {4, 2, GroupScore::top2_sum}, false);
    append_biased_top_k(cases, 33, 12, 3, {4, 2}, true);
    append_biased_top_k(cases, 9, 6, 2, {6, 3, GroupScore::top2_sum}, true);
    append_biased_top_k(cases, 700, 64, 8, {8, 4, GroupScore::top2_sum}, true);
    append_weights(cases, 0, 4, 2);
    append_weights(cases, 5, 1, 1);
    append_weights(cases, 900, 64, 8);
    append_sigmoid_scores(cases, 0, 4);
    append_sigmoid_scores(cases, 3, 1);
    append_sigmoid_scores(cases, 500, 64);
    append_choose_tokens(cases, 0, 4, 5, 2);
    append_choose_tokens(cases, 15, 4, 5, 2);
    append_choose_tokens(cases, 12, 3, 4, 9);
    append_choose_tokens(cases, 600, 16, 100, 13);
    append_choose_tokens(cases, 700, 3, 600, 300);
    append_sinkhorn(cases, 0, 4, 5, 3);
    append_sinkhorn(cases, 15, 4, 5, 3);
    append_sinkhorn(cases, 7, 1, 7, 1);
    append_sinkhorn(cases, 600, 16, 100, 8);
}

}  // namespace moesaic::conformance
