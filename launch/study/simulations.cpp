#include "launch/study/simulations.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "runtime/base/philox.h"
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

}  // namespace

std::span<const Simulation> simulations() {
    static const std::vector<Simulation> table{
        {"hash_router", "constant experts behind a hash router fit noise labels", "samples experts",
         draw_hash_router},
        {"softmax_gate", "a softmax gate over two constant experts fits noise labels", "samples width scale",
         draw_softmax_gate},
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
