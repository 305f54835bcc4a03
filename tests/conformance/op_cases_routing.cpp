// Cases of choosing experts and of moving rows.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

void append_top_k(std::vector<OpCase>& cases, i64 rows, i64 experts, i64 choices) {
    Buffer scores = normal("scores", {rows, experts});
    for (double& score : scores.values) score = static_cast<double>(static_cast<i64>(score * 4)) / 4;  // ties
    cases.push_back(
        {.name = fmt::format("top_k {} of {}x{}", choices, rows, experts),
         .buffers = {by_row(real(scores)), by_row(output("index", {rows, choices}, Storage::int32)),
                     by_row(real(output("value", {rows, choices})))},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.top_k(s, {.scores = v[0], .index = v[1], .value = v[2]}); },
         .reference =
             [=](Values& v) {
                 std::vector<i64> order(at(experts));
                 for (i64 row = 0; row < rows; ++row) {
                     const double* score = v[0].data() + row * experts;
                     std::iota(order.begin(), order.end(), 0);
                     std::stable_sort(order.begin(), order.end(),
                                      [&](i64 a, i64 b) { return score[a] > score[b]; });
                     for (i64 k = 0; k < choices; ++k) {
                         v[1][at(row * choices + k)] = static_cast<double>(order[at(k)]);
                         v[2][at(row * choices + k)] = score[order[at(k)]];
                     }
                 }
             },
         .tolerance_f32 = 0,
         .tolerance_f64 = 0});
}

void append_group_by_key(std::vector<OpCase>& cases, i64 positions, i64 groups) {
    cases.push_back(
        {.name = fmt::format("group_by_key {} into {}", positions, groups),
         .buffers = {integers("key", {positions}, -1, groups), output("order", {positions}, Storage::int32),
                     output("counts", {groups}, Storage::int64)},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.group_by_key(s, {.key = v[0], .order = v[1], .counts = v[2]}); },
         .reference =
             [=](Values& v) {
                 std::size_t next = 0;
                 for (i64 group = 0; group < groups; ++group) {
                     const std::size_t first = next;
                     for (std::size_t i = 0; i < v[0].size(); ++i) {
                         if (v[0][i] == static_cast<double>(group)) v[1][next++] = static_cast<double>(i);
                     }
                     v[2][at(group)] = static_cast<double>(next - first);
                 }
             },
         .tolerance_f32 = 0,
         .tolerance_f64 = 0,
         .row_unit = 0});
}

void append_gather(std::vector<OpCase>& cases, i64 sources, i64 rows, i64 width, bool accumulate) {
    const Shape shape{rows, width};
    cases.push_back(
        {.name =
             fmt::format("gather_rows {} of {}x{}{}", rows, sources, width, accumulate ? " accumulate" : ""),
         .buffers = {normal("in", {sources, width}), by_row(integers("index", {rows}, -1, sources)),
                     by_row(written(normal("out", shape)))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.gather_rows(s, {.in = v[0], .index = v[1], .out = v[2], .accumulate = accumulate});
             },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < rows * width; ++i) {
                     const auto source = static_cast<i64>(v[1][at(i / width)]);
                     const double value = source < 0 ? 0 : v[0][at(source * width + i % width)];
                     v[2][at(i)] = accumulate ? v[2][at(i)] + value : value;
                 }
             },
         .tolerance_f32 = 1e-7,
         .tolerance_f64 = 0});
}

/// Rows go to places in an order that is not theirs; some places stay as they are.
void append_gather_to_places(std::vector<OpCase>& cases, i64 rows, i64 sources, i64 width, bool past_caches) {
    const i64 places = rows + rows / 3 + 2;  // no multiple of 5
    std::vector<double> place(at(rows));
    for (i64 i = 0; i < rows; ++i) place[at(i)] = static_cast<double>((i * 5 + 1) % places);
    cases.push_back(
        {.name = fmt::format("gather_rows {} of {}x{} to places{}", rows, sources, width,
                             past_caches ? " past caches" : ""),
         .buffers = {normal("in", {sources, width}), integers("index", {rows}, -1, sources),
                     filled("place", {rows}, place, Storage::int32), written(normal("out", {places, width}))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.gather_rows(
                     s, {.in = v[0], .index = v[1], .out = v[3], .place = v[2], .past_caches = past_caches});
             },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < rows * width; ++i) {
                     const auto source = static_cast<i64>(v[1][at(i / width)]);
                     const auto target = static_cast<i64>(v[2][at(i / width)]);
                     v[3][at(target * width + i % width)] =
                         source < 0 ? 0 : v[0][at(source * width + i % width)];
                 }
             },
         .tolerance_f32 = 1e-7,
         .tolerance_f64 = 0,
         .row_unit = 0});
}

/// Every slot is the place of one choice, in an order that is not that of the choices; some choices have
/// none.
Buffer slots_of(i64 tokens, i64 choices) {
    const i64 count = tokens * choices;
    std::vector<double> slot(at(count));
    for (i64 i = 0; i < count; ++i) slot[at(i)] = i % 5 == 3 ? -1 : static_cast<double>((i * 7 + 2) % count);
    return by_row(filled("slot", {tokens, choices}, slot, Storage::int32));
}

void append_combine(std::vector<OpCase>& cases, i64 tokens, i64 choices, i64 width, bool weighted,
                    bool accumulate) {
    cases.push_back({.name = fmt::format("combine_rows {}x{}x{}{}{}", tokens, choices, width,
                                         weighted ? " weighted" : "", accumulate ? " accumulate" : ""),
                     .buffers = {normal("rows", {tokens * choices, width}), slots_of(tokens, choices),
                                 by_row(real(normal("weight", {tokens, choices}))),
                                 by_row(written(normal("y", {tokens, width})))},
                     .run =
                         [=](Backend& b, Stream& s, Views v) {
                             b.combine_rows(s,
                                            {.rows = v[0],
                                             .slot = v[1],
                                             .weight = weighted ? ConstTensorView(v[2]) : ConstTensorView(),
                                             .y = v[3],
                                             .accumulate = accumulate});
                         },
                     .reference =
                         [=](Values& v) {
                             for (i64 i = 0; i < tokens * width; ++i) {
                                 double sum = accumulate ? v[3][at(i)] : 0;
                                 for (i64 k = i / width * choices; k < (i / width + 1) * choices; ++k) {
                                     if (v[1][at(k)] < 0) continue;
                                     const auto slot = static_cast<i64>(v[1][at(k)]);
                                     sum += (weighted ? v[2][at(k)] : 1) * v[0][at(slot * width + i % width)];
                                 }
                                 v[3][at(i)] = sum;
                             }
                         },
                     .tolerance_f32 = 1e-6});
}

void combine_grad_reference(Values& v, i64 choices, i64 width) {
    for (std::size_t choice = 0; choice < v[1].size(); ++choice) {
        v[5][choice] = 0;
        if (v[1][choice] < 0) continue;
        for (std::size_t i = 0; i < at(width); ++i) {
            const std::size_t row = static_cast<std::size_t>(v[1][choice]) * at(width) + i;
            const double dy = v[3][choice / at(choices) * at(width) + i];
            v[4][row] = v[2][choice] * dy;
            v[5][choice] += dy * v[0][row];
        }
    }
}

void append_combine_grad(std::vector<OpCase>& cases, i64 tokens, i64 choices, i64 width) {
    const Buffer slot = slots_of(tokens, choices);
    // Rows of slots that no choice has are not written; their derivative is 0.
    Buffer d_rows = written(
        filled("d_rows", {tokens * choices, width}, std::vector<double>(at(tokens * choices * width))));
    cases.push_back(
        {.name = fmt::format("combine_rows_backward {}x{}x{}", tokens, choices, width),
         .buffers = {normal("rows", {tokens * choices, width}), slot,
                     by_row(real(normal("weight", {tokens, choices}))), by_row(normal("dy", {tokens, width})),
                     d_rows, by_row(real(output("d_weight", {tokens, choices})))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.combine_rows_backward(s, {.rows = v[0],
                                             .slot = v[1],
                                             .weight = v[2],
                                             .dy = v[3],
                                             .d_rows = v[4],
                                             .d_weight = v[5]});
             },
         .reference = [=](Values& v) { combine_grad_reference(v, choices, width); },
         .objective =
             [](Backend& b, Stream& s, Views v) {
                 Tensor y = b.allocate(v[3].shape, DType::f64);
                 b.combine_rows(s, {.rows = v[0], .slot = v[1], .weight = v[2], .y = y});
                 return dot(s, y, v[3]);
             },
         .gradients = {{0, 4}, {2, 5}}});
}

void append_confidence(std::vector<OpCase>& cases, i64 tokens, i64 experts, i64 choices, i64 part) {
    const i64 parts = (tokens + part - 1) / part;
    Buffer probability = normal("probability", {tokens, experts});
    for (double& one : probability.values) one = one < -1 ? 0 : std::exp(one);  // some are exactly 0
    cases.push_back(
        {.name = fmt::format("router_confidence {}x{} {} in parts of {}", tokens, experts, choices, part),
         .buffers = {by_row(real(probability)), by_row(real(normal("weight", {tokens, choices}))),
                     output("entropy_sum", {parts}, Storage::f64),
                     output("first_weight_sum", {parts}, Storage::f64)},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.router_confidence(s, {.probability = v[0],
                                         .weight = v[1],
                                         .rows_per_part = part,
                                         .entropy_sum = v[2],
                                         .first_weight_sum = v[3]});
             },
         .reference =
             [=](Values& v) {
                 for (std::size_t i = 2; i < 4; ++i) std::fill(v[i].begin(), v[i].end(), 0.0);
                 for (i64 t = 0; t < tokens; ++t) {
                     for (i64 e = 0; e < experts; ++e) {
                         const double p = v[0][at(t * experts + e)];
                         if (p != 0) v[2][at(t / part)] -= p * std::log(p);
                     }
                     v[3][at(t / part)] += v[1][at(t * choices)];
                 }
             },
         .tolerance_f32 = 1e-6,
         .row_unit = 0});
}

void append_sigmoid_gate(std::vector<OpCase>& cases, i64 rows, i64 width) {
    const auto gate = [](double logit) { return 1 / (1 + std::exp(-logit)); };
    cases.push_back(
        {.name = fmt::format("sigmoid_gate {}x{}", rows, width),
         .buffers = {by_row(real(normal("logit", {rows, 1}, 3))), by_row(normal("rows", {rows, width})),
                     by_row(written(normal("y", {rows, width})))},
         .run = [](Backend& b, Stream& s,
                   Views v) { b.sigmoid_gate(s, {.logit = v[0], .rows = v[1], .y = v[2]}); },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < rows * width; ++i)
                     v[2][at(i)] += gate(v[0][at(i / width)]) * v[1][at(i)];
             },
         .tolerance_f32 = 1e-6});
    // d_rows in the rows' own memory, as the shared expert has it.
    cases.push_back(
        {.name = fmt::format("sigmoid_gate_backward {}x{}", rows, width),
         .buffers = {by_row(real(normal("logit", {rows, 1}, 3))),
                     by_row(written(normal("rows", {rows, width}))), by_row(normal("dy", {rows, width})),
                     by_row(real(output("d_logit", {rows, 1}))), by_row(normal("rows", {rows, width}))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.sigmoid_gate_backward(
                     s, {.logit = v[0], .rows = v[1], .dy = v[2], .d_rows = v[1], .d_logit = v[3]});
             },
         .reference =
             [=](Values& v) {
                 for (i64 row = 0; row < rows; ++row) {
                     const double s = gate(v[0][at(row)]);
                     double dot = 0;
                     for (i64 i = row * width; i < (row + 1) * width; ++i) {
                         dot += v[2][at(i)] * v[1][at(i)];
                         v[1][at(i)] = s * v[2][at(i)];
                     }
                     v[3][at(row)] = s * (1 - s) * dot;
                 }
             },
         .objective =
             [](Backend& b, Stream& s, Views v) {
                 Tensor y = b.allocate(v[2].shape, DType::f64);
                 b.zero(s, y);
                 b.sigmoid_gate(s, {.logit = v[0], .rows = v[4], .y = y});
                 return dot(s, y, v[2]);
             },
         .gradients = {{0, 3}, {4, 1}}});
}

}  // namespace

void append_routing_cases(std::vector<OpCase>& cases) {
    append_top_k(cases, 0, 8, 2);
    append_top_k(cases, 6, 1, 1);
    append_top_k(cases, 50, 7, 3);
    append_top_k(cases, 9, 5, 5);
    append_top_k(cases, 800, 64, 8);
    append_top_k(cases, 1, 8, 2);
    append_top_k(cases, 11, 40, 35);
    append_top_k(cases, 9, 128, 4);
    append_top_k(cases, 9, 256, 8);
    append_top_k(cases, 5, 300, 12);
    append_group_by_key(cases, 0, 4);
    append_group_by_key(cases, 17, 1);
    append_group_by_key(cases, 1, 1);
    append_group_by_key(cases, 1001, 13);
    append_group_by_key(cases, 2100, 8);
    append_group_by_key(cases, 2048, 256);
    append_group_by_key(cases, 2500, 300);
    append_group_by_key(cases, 70000, 5);  // more than a chunk's least keys in each of the most chunks
    for (const bool accumulate : {false, true}) {
        append_gather(cases, 3, 0, 8, accumulate);
        append_gather(cases, 5, 9, 7, accumulate);
        append_gather(cases, 100, 300, 130, accumulate);
        append_gather(cases, 7, 21, 612, accumulate);
        append_gather_to_places(cases, 0, 3, 8, accumulate);
        append_gather_to_places(cases, 9, 5, 7, accumulate);
        append_gather_to_places(cases, 300, 100, 160, accumulate);
        for (const bool weighted : {false, true}) {
            append_combine(cases, 0, 2, 8, weighted, accumulate);
            append_combine(cases, 4, 1, 7, weighted, accumulate);
            append_combine(cases, 8, 3, 19, weighted, accumulate);
            append_combine(cases, 101, 8, 64, weighted, accumulate);
            append_combine(cases, 3, 5, 1100, weighted, accumulate);
        }
    }
    append_confidence(cases, 0, 4, 2, 8);
    append_confidence(cases, 1, 1, 1, 64);
    append_confidence(cases, 21, 5, 2, 8);
    append_confidence(cases, 700, 64, 8, 64);
    append_confidence(cases, 300, 2, 1, 290);
    append_confidence(cases, 9, 300, 6, 5);
    append_sigmoid_gate(cases, 0, 8);
    append_sigmoid_gate(cases, 3, 1);
    append_sigmoid_gate(cases, 9, 37);
    append_sigmoid_gate(cases, 301, 130);
    append_sigmoid_gate(cases, 3, 1100);
    append_sigmoid_gate(cases, 2, 1203);
    append_combine_grad(cases, 0, 2, 8);
    append_combine_grad(cases, 4, 1, 7);
    append_combine_grad(cases, 8, 3, 19);
    append_combine_grad(cases, 101, 8, 70);
    append_combine_grad(cases, 20, 2, 128);
    append_combine_grad(cases, 3, 2, 1100);
    append_combine_grad(cases, 2, 2, 1203);
}

}  // namespace moesaic::conformance
