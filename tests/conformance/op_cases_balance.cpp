// Cases of what balance losses and capacities compute.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

Buffer index_of(i64 tokens, i64 choices, i64 experts) {
    return integers("index", {tokens, choices}, -1, experts);
}

Buffer positive(std::string name, Shape shape) {
    Buffer buffer = normal(std::move(name), shape);
    for (double& value : buffer.values) value = std::abs(value) + 0.1;
    return buffer;
}

/// Of `index`, some choices; every fifth token loses all.
Buffer kept_of(const Buffer& index) {
    Buffer kept = index;
    kept.name = "kept";
    const auto choices = static_cast<std::size_t>(index.shape.cols());
    for (std::size_t i = 0; i < kept.values.size(); ++i) {
        if (i % 3 == 1 || (i / choices) % 5 == 2) kept.values[i] = -1;
    }
    return kept;
}

void sums_reference(Values& v, i64 tokens, i64 choices, i64 experts, i64 size, CountedChoices counted) {
    for (std::size_t output = 5; output < 11; ++output) std::fill(v[output].begin(), v[output].end(), 0.0);
    for (i64 t = 0; t < tokens; ++t) {
        const std::size_t object = at(t / size);
        const auto cell = [&](i64 e) { return object * at(experts) + at(e); };
        for (i64 e = 0; e < experts; ++e) {
            v[7][cell(e)] += v[0][at(t * experts + e)];
            v[9][cell(e)] += v[2][at(t * experts + e)];
        }
        v[10][object] += v[1][at(t)] * v[1][at(t)];
        const auto row = v[0].begin() + t * experts;
        if (counted == CountedChoices::most_probable)
            v[6][cell(std::max_element(row, row + experts) - row)] += 1;
        for (i64 k = 0; k < choices; ++k) {
            const auto e = static_cast<i64>(v[3][at(t * choices + k)]);
            if (e < 0) continue;
            v[5][cell(e)] += 1;
            v[8][cell(e)] += v[4][at(t * choices + k)];
            if (counted == CountedChoices::all || (counted == CountedChoices::first && k == 0))
                v[6][cell(e)] += 1;
        }
    }
}

void append_sums(std::vector<OpCase>& cases, i64 tokens, i64 choices, i64 experts, i64 size,
                 CountedChoices counted) {
    const Shape by_expert{(tokens + size - 1) / size, experts};
    const Shape by_object{by_expert.rows()};
    cases.push_back(
        {.name = fmt::format("router_sums {}x{} of {} by {}, counted {}", tokens, choices, experts, size,
                             static_cast<int>(counted)),
         .buffers = {real(normal("probability", {tokens, experts})), real(normal("log_sum_exp", {tokens})),
                     real(normal("load_probability", {tokens, experts})), index_of(tokens, choices, experts),
                     real(normal("weight", {tokens, choices})), output("counts", by_expert, Storage::int64),
                     output("balance_counts", by_expert, Storage::int64),
                     output("probability_sum", by_expert, Storage::f64),
                     output("weight_sum", by_expert, Storage::f64),
                     output("load_sum", by_expert, Storage::f64), output("z_sum", by_object, Storage::f64)},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.router_sums(s, {.probability = v[0],
                                   .log_sum_exp = v[1],
                                   .load_probability = v[2],
                                   .index = v[3],
                                   .weight = v[4],
                                   .rows_per_object = size,
                                   .counted = counted,
                                   .counts = v[5],
                                   .balance_counts = v[6],
                                   .probability_sum = v[7],
                                   .weight_sum = v[8],
                                   .load_sum = v[9],
                                   .z_sum = v[10]});
             },
         .reference = [=](Values& v) { sums_reference(v, tokens, choices, experts, size, counted); },
         .row_unit = 0});
}

void append_add_by_choice(std::vector<OpCase>& cases, i64 tokens, i64 choices, i64 experts, i64 objects) {
    const i64 size = std::max<i64>((tokens + objects - 1) / objects, 1);
    Buffer factor = normal("factor", {objects, experts});
    factor.storage = Storage::f64;
    cases.push_back(
        {.name = fmt::format("add_by_choice {}x{} of {} in {}", tokens, choices, experts, objects),
         .buffers = {factor, by_row(index_of(tokens, choices, experts)),
                     by_row(written(real(normal("d_weight", {tokens, choices}))))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.add_by_choice(s,
                                 {.factor = v[0], .index = v[1], .rows_per_object = size, .d_weight = v[2]});
             },
         .reference =
             [=](Values& v) {
                 for (i64 i = 0; i < tokens * choices; ++i) {
                     const auto e = static_cast<i64>(v[1][at(i)]);
                     if (e >= 0) v[2][at(i)] += v[0][at(i / choices / size * experts + e)];
                 }
             },
         .row_unit = objects == 1 ? 1 : 0});
}

/// Expert by expert and object by object, the best `capacity` of all choices.
void limit_reference(Values& v, i64 choices, i64 experts, i64 size, i64 capacity, bool by_priority) {
    v[2] = v[0];
    const i64 count = static_cast<i64>(v[0].size());
    for (i64 first = 0; first < count; first += size * choices) {
        for (i64 e = 0; e < experts; ++e) {
            std::vector<i64> mine;
            for (i64 i = first; i < std::min(first + size * choices, count); ++i) {
                if (v[0][at(i)] == static_cast<double>(e)) mine.push_back(i);
            }
            if (by_priority) {
                std::stable_sort(mine.begin(), mine.end(), [&](i64 a, i64 b) {
                    return v[1][at(a / choices * experts + e)] > v[1][at(b / choices * experts + e)];
                });
            }
            for (std::size_t i = at(capacity); i < mine.size(); ++i) v[2][at(mine[i])] = -1;
        }
    }
}

void append_limit(std::vector<OpCase>& cases, i64 tokens, i64 choices, i64 experts, i64 size, i64 capacity,
                  bool by_priority) {
    Buffer priority = normal("priority", {tokens, experts});
    for (double& one : priority.values) one = static_cast<double>(static_cast<i64>(one * 4)) / 4;  // ties
    cases.push_back(
        {.name = fmt::format("limit_choices {}x{} of {} by {} to {}{}", tokens, choices, experts, size,
                             capacity, by_priority ? "" : ", first come"),
         .buffers = {by_row(index_of(tokens, choices, experts)), by_row(real(priority)),
                     by_row(output("kept", {tokens, choices}, Storage::int32))},
         .run =
             [=](Backend& b, Stream& s, Views v) {
                 b.limit_choices(s, {.index = v[0],
                                     .priority = by_priority ? v[1] : TensorView(),
                                     .experts = experts,
                                     .rows_per_object = size,
                                     .capacity = capacity,
                                     .kept = v[2]});
             },
         .reference = [=](Values& v) { limit_reference(v, choices, experts, size, capacity, by_priority); },
         .tolerance_f32 = 0,
         .tolerance_f64 = 0,
         .row_unit = size});
}

/// Sums of a token's weights: of all its choices and of the kept ones.
std::pair<double, double> weight_sums(const Values& v, std::size_t first, std::size_t choices) {
    double all = 0, kept = 0;
    for (std::size_t i = first; i < first + choices; ++i) {
        if (v[1][i] >= 0) all += v[0][i];
        if (v[2][i] >= 0) kept += v[0][i];
    }
    return {all, kept};
}

void append_rescale(std::vector<OpCase>& cases, i64 tokens, i64 choices, i64 experts) {
    const Buffer index = index_of(tokens, choices, experts);
    const Buffer kept = kept_of(index);
    cases.push_back({.name = fmt::format("rescale_kept {}x{}", tokens, choices),
                     .buffers = {by_row(real(positive("weight", {tokens, choices}))), by_row(index),
                                 by_row(kept), by_row(real(output("out", {tokens, choices})))},
                     .run =
                         [](Backend& b, Stream& s, Views v) {
                             b.rescale_kept(s, {.weight = v[0], .index = v[1], .kept = v[2], .out = v[3]});
                         },
                     .reference =
                         [=](Values& v) {
                             for (std::size_t i = 0; i < v[0].size(); ++i) {
                                 const auto [all, rest] =
                                     weight_sums(v, i / at(choices) * at(choices), at(choices));
                                 v[3][i] = v[2][i] >= 0 ? v[0][i] * all / rest : 0;
                             }
                         }});
    cases.push_back(
        {.name = fmt::format("rescale_kept_backward {}x{}", tokens, choices),
         .buffers = {by_row(real(positive("weight", {tokens, choices}))), by_row(index), by_row(kept),
                     by_row(real(normal("d_out", {tokens, choices}))),
                     by_row(real(output("d_weight", {tokens, choices})))},
         .run =
             [](Backend& b, Stream& s, Views v) {
                 b.rescale_kept_backward(
                     s, {.weight = v[0], .index = v[1], .kept = v[2], .d_out = v[3], .d_weight = v[4]});
             },
         .reference =
             [=](Values& v) {
                 for (std::size_t i = 0; i < v[0].size(); ++i) {
                     const std::size_t first = i / at(choices) * at(choices);
                     const auto [all, rest] = weight_sums(v, first, at(choices));
                     double product = 0;
                     for (std::size_t j = first; j < first + at(choices); ++j) {
                         if (v[2][j] >= 0) product += v[3][j] * v[0][j];
                     }
                     v[4][i] = 0;
                     if (v[1][i] >= 0 && rest > 0) v[4][i] += product / rest;
                     if (v[2][i] >= 0) v[4][i] += v[3][i] * all / rest - product * all / rest / rest;
                 }
             },
         .objective =
             [](Backend& b, Stream& s, Views v) {
                 Tensor out = b.allocate(v[0].shape, DType::f64);
                 b.rescale_kept(s, {.weight = v[0], .index = v[1], .kept = v[2], .out = out});
                 return dot(s, out, v[3]);
             },
         .gradients = {{0, 4}}});
}

}  // namespace

void append_balance_cases(std::vector<OpCase>& cases) {
    for (const CountedChoices counted :
         {CountedChoices::all, CountedChoices::first, CountedChoices::most_probable}) {
        append_sums(cases, 0, 2, 4, 3, counted);
        append_sums(cases, 7, 1, 3, 7, counted);
        append_sums(cases, 50, 3, 9, 8, counted);  // the last object is short
        append_sums(cases, 1, 2, 8, 1, counted);
        append_sums(cases, 90, 8, 64, 70, counted);
        append_sums(cases, 33, 8, 256, 33, counted);
        append_sums(cases, 40, 2, 300, 40, counted);
    }
    append_sums(cases, 1100, 2, 8, 1100, CountedChoices::all);
    append_sums(cases, 13, 7, 7, 5, CountedChoices::all);
    append_sums(cases, 70, 1, 1, 70, CountedChoices::all);
    append_add_by_choice(cases, 0, 2, 4, 1);
    append_add_by_choice(cases, 13, 3, 5, 1);
    append_add_by_choice(cases, 40, 2, 7, 4);
    for (const bool by_priority : {true, false}) {
        append_limit(cases, 0, 2, 4, 3, 1, by_priority);
        append_limit(cases, 9, 1, 1, 9, 4, by_priority);
        append_limit(cases, 60, 3, 5, 12, 5, by_priority);
        append_limit(cases, 50, 2, 16, 50, 3, by_priority);
        append_limit(cases, 31, 4, 8, 10, 100, by_priority);  // room for all
    }
    append_rescale(cases, 0, 2, 4);
    append_rescale(cases, 6, 1, 3);
    append_rescale(cases, 101, 4, 9);
}

}  // namespace moesaic::conformance
