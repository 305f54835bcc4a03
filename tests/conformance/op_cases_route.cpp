// Cases of a router's whole forward.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/route_in_turn.h"
#include "tests/conformance/op_cases.h"

namespace moesaic::conformance {

namespace {

struct RouteCase {
    i64 tokens, experts, choices;
    bool sigmoid = false, over_choices = false;
    i64 groups = 1, top_groups = 1, rows_per_object = 1;
    double weight_scale = 1;
    CountedChoices counted = CountedChoices::all;
};

enum RouteBuffer : std::size_t {
    kLogits,
    kBias,
    kScore,
    kProbability,
    kLogSumExp,
    kIndex,
    kWeight,
    kCounts,
    kBalanceCounts,
    kProbabilitySum,
    kWeightSum,
    kLoadSum,
    kZSum
};

Route route_of(const RouteCase& of, Views v) {
    return {.logits = v[kLogits],
            .bias = of.sigmoid ? ConstTensorView(v[kBias]) : ConstTensorView(),
            .sigmoid = of.sigmoid,
            .over_choices = of.over_choices,
            .weight_scale = of.weight_scale,
            .groups = of.groups,
            .top_groups = of.top_groups,
            .group_score = GroupScore::top2_sum,
            .rows_per_object = of.rows_per_object,
            .counted = of.counted,
            .score = of.sigmoid ? v[kScore] : TensorView(),
            .probability = v[kProbability],
            .log_sum_exp = v[kLogSumExp],
            .index = v[kIndex],
            .weight = v[kWeight],
            .counts = v[kCounts],
            .balance_counts = v[kBalanceCounts],
            .probability_sum = v[kProbabilitySum],
            .weight_sum = v[kWeightSum],
            .load_sum = v[kLoadSum],
            .z_sum = v[kZSum]};
}

std::vector<double> divided(std::vector<double> values) {
    const double sum = std::accumulate(values.begin(), values.end(), 0.0);
    for (double& value : values) value /= sum;
    return values;
}

/// The experts that a token may choose keep their scores; the others fall behind them all.
std::vector<double> within_groups(std::vector<double> scores, const RouteCase& of) {
    const i64 size = of.experts / of.groups;
    std::vector<double> group_scores;
    for (i64 group = 0; group < of.groups; ++group) {
        std::vector<double> members = row_of(scores, group, size);
        std::sort(members.begin(), members.end(), std::greater<>());
        group_scores.push_back(size > 1 ? members[0] + members[1] : members[0]);
    }
    const std::vector<i64> kept = best_of(group_scores, of.top_groups);
    for (i64 e = 0; e < of.experts; ++e)
        if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) scores[at(e)] = -1e30;
    return scores;
}

void add_token(Values& v, const RouteCase& of, i64 t, const std::vector<double>& probability) {
    const i64 object = t / of.rows_per_object;
    const auto cell = [&](i64 e) { return at(object * of.experts + e); };
    for (i64 e = 0; e < of.experts; ++e) v[kProbabilitySum][cell(e)] += probability[at(e)];
    v[kZSum][at(object)] += v[kLogSumExp][at(t)] * v[kLogSumExp][at(t)];
    const auto most = std::max_element(probability.begin(), probability.end()) - probability.begin();
    if (of.counted == CountedChoices::most_probable) v[kBalanceCounts][cell(most)] += 1;
    for (i64 k = 0; k < of.choices; ++k) {
        const auto e = static_cast<i64>(v[kIndex][at(t * of.choices + k)]);
        v[kCounts][cell(e)] += 1;
        v[kWeightSum][cell(e)] += v[kWeight][at(t * of.choices + k)];
        if (of.counted == CountedChoices::all || (of.counted == CountedChoices::first && k == 0))
            v[kBalanceCounts][cell(e)] += 1;
    }
}

void route_reference(Values& v, const RouteCase& of) {
    for (std::size_t i = kCounts; i <= kZSum; ++i) std::fill(v[i].begin(), v[i].end(), 0.0);
    for (i64 t = 0; t < of.tokens; ++t) {
        const std::vector<double> logits = row_of(v[kLogits], t, of.experts);
        std::vector<double> powers, scores;
        for (const double x : logits) powers.push_back(std::exp(x));
        v[kLogSumExp][at(t)] = std::log(std::accumulate(powers.begin(), powers.end(), 0.0));
        for (const double x : logits) scores.push_back(1 / (1 + std::exp(-x)));
        if (!of.sigmoid) scores = divided(powers);
        const std::vector<double> probability = divided(scores);
        std::vector<double> biased = scores, chosen;
        for (i64 e = 0; e < of.experts && of.sigmoid; ++e) biased[at(e)] += v[kBias][at(e)];
        const std::vector<i64> best = best_of(within_groups(biased, of), of.choices);
        for (const i64 e : best) chosen.push_back(scores[at(e)]);
        if (of.over_choices) chosen = divided(chosen);
        for (i64 k = 0; k < of.choices; ++k) {
            v[kIndex][at(t * of.choices + k)] = static_cast<double>(best[at(k)]);
            v[kWeight][at(t * of.choices + k)] = chosen[at(k)] * of.weight_scale;
        }
        for (i64 e = 0; e < of.experts; ++e) {
            if (of.sigmoid) v[kScore][at(t * of.experts + e)] = scores[at(e)];
            v[kProbability][at(t * of.experts + e)] = probability[at(e)];
        }
        add_token(v, of, t, probability);
    }
}

void append_route(std::vector<OpCase>& cases, const RouteCase& of) {
    const Shape scores{of.tokens, of.experts}, choices{of.tokens, of.choices};
    const Shape by_object{(of.tokens + of.rows_per_object - 1) / of.rows_per_object};
    const Shape by_expert{by_object.rows(), of.experts};
    cases.push_back(
        {.name = fmt::format("route {}x{} of {}{}{} in {} of {} groups by {}, counted {}", of.tokens,
                             of.choices, of.experts, of.sigmoid ? " sigmoid" : " softmax",
                             of.over_choices ? " over choices" : "", of.top_groups, of.groups,
                             of.rows_per_object, static_cast<int>(of.counted)),
         .buffers = {real(normal("logits", scores, 2)), real(normal("bias", {of.experts}, 0.1)),
                     real(output("score", scores)), real(output("probability", scores)),
                     real(output("log_sum_exp", {of.tokens})), output("index", choices, Storage::int32),
                     real(output("weight", choices)), output("counts", by_expert, Storage::int64),
                     output("balance_counts", by_expert, Storage::int64),
                     output("probability_sum", by_expert, Storage::f64),
                     output("weight_sum", by_expert, Storage::f64),
                     output("load_sum", by_expert, Storage::f64), output("z_sum", by_object, Storage::f64)},
         .run = [=](Backend& b, Stream& s, Views v) { b.route(s, route_of(of, v)); },
         .reference = [=](Values& v) { route_reference(v, of); },
         .tolerance_f32 = 1e-5,
         .row_unit = 0,
         .same_bits = [=](Backend& b, Stream& s, Views v) { route_in_turn(b, s, route_of(of, v)); }});
}

}  // namespace

void append_route_cases(std::vector<OpCase>& cases) {
    for (const CountedChoices counted :
         {CountedChoices::all, CountedChoices::first, CountedChoices::most_probable}) {
        append_route(cases,
                     {.tokens = 70, .experts = 8, .choices = 2, .rows_per_object = 70, .counted = counted});
    }
    append_route(cases, {.tokens = 0, .experts = 4, .choices = 2});
    append_route(cases, {.tokens = 1, .experts = 1, .choices = 1});
    append_route(cases,
                 {.tokens = 9, .experts = 7, .choices = 7, .over_choices = true, .rows_per_object = 4});
    append_route(cases, {.tokens = 50,
                         .experts = 64,
                         .choices = 8,
                         .sigmoid = true,
                         .over_choices = true,
                         .groups = 8,
                         .top_groups = 4,
                         .rows_per_object = 25,
                         .weight_scale = 2.5});
    append_route(cases, {.tokens = 13, .experts = 33, .choices = 3, .sigmoid = true, .rows_per_object = 13});
    append_route(cases, {.tokens = 24,
                         .experts = 128,
                         .choices = 3,
                         .over_choices = true,
                         .groups = 4,
                         .top_groups = 2,
                         .rows_per_object = 24,
                         .weight_scale = 0.5});
    append_route(cases,
                 {.tokens = 33, .experts = 256, .choices = 8, .over_choices = true, .rows_per_object = 33});
    // What no back end takes in one pass.
    append_route(cases, {.tokens = 5, .experts = 300, .choices = 4, .rows_per_object = 5});
    append_route(cases,
                 {.tokens = 5, .experts = 40, .choices = 35, .over_choices = true, .rows_per_object = 5});
}

}  // namespace moesaic::conformance
