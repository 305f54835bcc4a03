#include "launch/study/simulations.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <numbers>
#include <utility>
#include <vector>

#include "runtime/base/philox.h"
#include "runtime/data/tables/function_table.h"
#include "runtime/metrics/bounds/norms.h"
#include "runtime/metrics/bounds/published.h"
#include "runtime/metrics/bounds/routed_mixture.h"

namespace moesaic {

namespace {

constexpr double kDelta = 0.05;

/// The loss is (1 - y f)/2: range 1, Lipschitz constant 1/2; labels are noise, so that every true loss is 1/2
/// and the gap is 1/2 minus the training loss, exactly.
RoutedMixture noise_mixture(double samples, double experts, double top_k, GateKind gate) {
    RoutedMixture mixture;
    mixture.samples = samples;
    mixture.delta = kDelta;
    mixture.router.experts = experts;
    mixture.router.top_k = top_k;
    mixture.gate = gate;
    mixture.lipschitz = 0.5;
    return mixture;
}

void tell(StudyRow& row, double gap, double published, double corrected) {
    row["gap"] = number_text(gap);
    row["bound.published"] = number_text(published);
    row["bound.corrected"] = number_text(corrected);
    // The gap is exact, its own lower limit: what raises the alarm of a run.
    row["alarm.published"] = gap > published ? "1" : "0";
    row["alarm.corrected"] = gap > corrected ? "1" : "0";
}

/// Every example goes to a random expert, a constant that is the sign of its labels' sum.
void draw_hash_router(const StudyRow& point, u64 seed, StudyRow& row) {
    const double samples = *number_in(point, "samples"), experts = *number_in(point, "experts");
    const Philox random(seed, "labels and hashes of the violation study");
    std::vector<i64> sums(static_cast<std::size_t>(experts));
    for (u64 i = 0; i < static_cast<u64>(samples); ++i) {
        const u32 bits = random.bits(i);
        sums[(bits >> 1) % static_cast<u32>(sums.size())] += bits % 2 == 0 ? 1 : -1;
    }
    double fitted = 0;
    for (const i64 sum : sums) fitted += static_cast<double>(std::abs(sum));
    const double published =
        published_bound({samples, experts, 1, 0.5, constant_rademacher(samples), 0, kDelta, 1, false}).value;
    const double corrected = routed_mixture_bound(noise_mixture(samples, experts, 1, GateKind::frozen)).value;
    tell(row, fitted / (2 * samples), published, corrected);
    row["exact"] = number_text(expected_hash_gap(samples, experts));
}

/// Two constant experts, +1 and -1, both active: f(x) = 2 s(<v, x>) - 1 with v along sum of y_i x_i, x normal
/// with mean square 1. The masks carry nothing, the softmax gate alone fits the labels.
void draw_softmax_gate(const StudyRow& point, u64 seed, StudyRow& row) {
    const auto samples = static_cast<std::size_t>(*number_in(point, "samples"));
    const auto width = static_cast<std::size_t>(*number_in(point, "width"));
    const double scale = *number_in(point, "scale");
    const Philox inputs(seed, "inputs of the softmax study"), labels(seed, "labels of the softmax study");
    const auto label = [&](std::size_t i) { return labels.bits(i) % 2 == 0 ? 1.0 : -1.0; };
    std::vector<double> direction(width, 0.0), x(samples * width);
    for (std::size_t i = 0; i < samples; ++i) {
        double square = 0;
        for (std::size_t j = 0; j < width; ++j) {
            x[i * width + j] = inputs.normal(i * width + j);
            square += x[i * width + j] * x[i * width + j];
        }
        for (std::size_t j = 0; j < width; ++j) {  // on the sphere of radius sqrt(width)
            x[i * width + j] *= std::sqrt(static_cast<double>(width) / square);
            direction[j] += label(i) * x[i * width + j];
        }
    }
    double norm = 0;
    for (const double value : direction) norm += value * value;
    double fitted = 0;
    for (std::size_t i = 0; i < samples; ++i) {
        double logit = 0;
        for (std::size_t j = 0; j < width; ++j) logit += direction[j] * x[i * width + j];
        fitted += label(i) * std::tanh(scale * logit / std::sqrt(norm) / 2);
    }
    // "published" here is the form that counts masks alone: one mask, so that nothing is left of the routing.
    const auto count = static_cast<double>(samples);
    const double masks_only = std::sqrt(2 / count) + 3 * std::sqrt(std::log(2 / kDelta) / (2 * count));
    RoutedMixture mixture = noise_mixture(count, 2, 2, GateKind::softmax);
    mixture.router.inputs = static_cast<double>(width);
    mixture.router.bias = false;
    tell(row, fitted / (2 * count), masks_only, routed_mixture_bound(mixture).value);
}

/// The share of a Rademacher complexity that experts have under a fixed routing: for linear experts of norm 1
/// it is sup = (1/m) sum_j ||sum_i sigma_i w_ij x_i||. Inputs lie on the unit sphere, the router is random;
/// weights are softmax(scale x logits) over the chosen, or 1/k where `scale` is 0.
void draw_expert_part(const StudyRow& point, u64 seed, double scale, StudyRow& row) {
    const auto size = [&](const char* key) { return static_cast<std::size_t>(*number_in(point, key)); };
    const std::size_t samples = size("samples"), experts = size("experts"), width = size("width"),
                      top_k = std::min(size("top_k"), experts);
    const Philox inputs(seed, "inputs of the expert part"), router(seed, "router of the expert part"),
        signs(seed, "signs of the expert part");
    std::vector<double> sums(experts * width, 0.0), x(width), rows(experts * width);
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = router.normal(i);
    std::vector<std::pair<double, std::size_t>> logits(experts);
    double squares = 0;  // of all weights
    for (std::size_t i = 0; i < samples; ++i) {
        double norm = 0;
        for (std::size_t d = 0; d < width; ++d) {
            x[d] = inputs.normal(i * width + d);
            norm += x[d] * x[d];
        }
        for (double& value : x) value /= std::sqrt(norm);
        for (std::size_t j = 0; j < experts; ++j) {
            double logit = 0;  // of variance 1
            for (std::size_t d = 0; d < width; ++d) logit += rows[j * width + d] * x[d];
            logits[j] = {logit, j};
        }
        std::ranges::sort(logits, std::greater());
        double total = 0;
        const auto weight = [&](std::size_t rank) {
            return std::exp(scale * (logits[rank].first - logits[0].first));
        };
        for (std::size_t rank = 0; rank < top_k; ++rank) total += weight(rank);
        const double sign = signs.bits(i) % 2 == 0 ? 1 : -1;
        for (std::size_t rank = 0; rank < top_k; ++rank) {
            const double share = weight(rank) / total;
            squares += share * share;
            for (std::size_t d = 0; d < width; ++d)
                sums[logits[rank].second * width + d] += sign * share * x[d];
        }
    }
    double supremum = 0;
    for (std::size_t j = 0; j < experts; ++j) {
        double square = 0;
        for (std::size_t d = 0; d < width; ++d) square += sums[j * width + d] * sums[j * width + d];
        supremum += std::sqrt(square);
    }
    const auto count = static_cast<double>(samples);
    row["expert_part"] = number_text(supremum / count);
    row["k_eff"] = number_text(count / squares);
    row["law"] = number_text(std::sqrt(static_cast<double>(experts) * squares) / count);
}

void draw_uniform_experts(const StudyRow& point, u64 seed, StudyRow& row) {
    draw_expert_part(point, seed, 0, row);
}

void draw_softmax_experts(const StudyRow& point, u64 seed, StudyRow& row) {
    draw_expert_part(point, seed, *number_in(point, "scale"), row);
}

/// A constant for every cube of a grid of `cells` cubes along each input, which is Ackley's function at the
/// cube's centre. The bound is Lip sqrt(n) h / 2 for cubes of side h. Ackley's gradient is at most
/// (4 + 2 pi e) / sqrt(n): 20 exp(-0.2 s) changes by at most 4 in s = sqrt(mean x^2), which changes by at
/// most 1 / sqrt(n) in x; exp(mean cos 2 pi x) by at most e 2 pi / sqrt(n).
void draw_constant_experts(const StudyRow& point, u64 seed, StudyRow& row) {
    constexpr u64 kPlaces = 20000;
    const TestFunction& function = test_function("ackley");
    const auto inputs = static_cast<std::size_t>(*number_in(point, "dimensions"));
    const double cells = std::floor(*number_in(point, "cells")),
                 side = (function.high - function.low) / cells;
    const Philox random(seed, "places of the constant experts");
    std::vector<double> x(inputs), centre(inputs);
    double worst = 0;
    for (u64 place = 0; place < kPlaces; ++place) {
        for (std::size_t i = 0; i < inputs; ++i) {
            const double share = random.uniform(place * inputs + i) * cells;
            x[i] = function.low + share * side;
            centre[i] = function.low + (std::floor(share) + 0.5) * side;
        }
        worst = std::max(worst, std::abs(function.value(x) - function.value(centre)));
    }
    row["error"] = number_text(worst);
    row["bound"] = number_text((4 + 2 * std::numbers::pi * std::numbers::e) * side / 2);
    row["experts"] = number_text(std::pow(cells, static_cast<double>(inputs)));
}

}  // namespace

std::span<const Simulation> simulations() {
    static const std::vector<Simulation> table{
        {"hash_router", "constant experts behind a hash router fit noise labels", "samples experts",
         draw_hash_router},
        {"softmax_gate", "a softmax gate over two constant experts fits noise labels", "samples width scale",
         draw_softmax_gate},
        {"expert_part_uniform", "what linear experts add to a Rademacher complexity, weights 1/k",
         "samples experts top_k width", draw_uniform_experts},
        {"expert_part_softmax", "the same with softmax weights over the chosen",
         "samples experts top_k width scale", draw_softmax_experts},
        {"constant_experts", "largest error of constant experts on Ackley's function, and its bound",
         "dimensions cells", draw_constant_experts},
    };
    return table;
}

const Simulation* find_simulation(std::string_view name) {
    const auto found = std::ranges::find(simulations(), name, &Simulation::name);
    return found == simulations().end() ? nullptr : &*found;
}

double expected_hash_gap(double samples, double experts) {
    if (experts <= 1) return constant_rademacher(samples) / 2;
    // Binomial probabilities through their logarithms: the first of them vanish where an expert gets many.
    const double share = 1 / experts, mean = samples * share, deviation = std::sqrt(mean);
    const double first = std::max(1.0, std::floor(mean - 12 * deviation - 12));
    const double last = std::min(samples, std::ceil(mean + 12 * deviation + 40));
    double sum = 0;
    for (double n = first; n <= last; ++n) {
        const double log_probability = std::lgamma(samples + 1) - std::lgamma(n + 1) -
                                       std::lgamma(samples - n + 1) + n * std::log(share) +
                                       (samples - n) * std::log1p(-share);
        sum += std::exp(log_probability) * n * constant_rademacher(n);
    }
    return experts * sum / (2 * samples);
}

}  // namespace moesaic
