// Theorem 1: oracles, degenerate cases, the gate cover, and the two-expert softmax that breaks a mask count.
#include "runtime/metrics/bounds/routed_mixture.h"

#include <algorithm>
#include <numbers>
#include <numeric>

#include "runtime/base/philox.h"
#include "tests/unit/runtime/metrics/bounds/close.h"

namespace moesaic {
namespace {

RoutedMixture mixture(double samples, double experts, double top_k, double inputs, GateKind gate) {
    RoutedMixture input;
    input.samples = samples;
    input.router.experts = experts;
    input.router.top_k = top_k;
    input.router.inputs = inputs;
    input.gate = gate;
    return input;
}

constexpr GateKind kGates[] = {GateKind::uniform, GateKind::softmax, GateKind::softmax_all, GateKind::frozen};

TEST(RoutedMixture, OraclesOfTheFourGates) {
    const double values[] = {0.508932755418, 0.729460040901, 0.73462415579, 0.0688072766483};
    const double nats[] = {1042.8471453, 2058.7263121, 2091.91149746, 0};
    for (int i = 0; i < 4; ++i) {
        const BoundResult result = routed_mixture_bound(mixture(1e4, 8, 2, 16, kGates[i]));
        SCOPED_TRACE(name_of(kGates[i]));
        expect_close(result.value, values[i]);
        expect_close(result.details.at("routing_nats"), nats[i]);
        EXPECT_EQ(result.terms.sum(), result.value);
        EXPECT_FALSE(result.vacuous);
    }
    const BoundResult softmax = routed_mixture_bound(mixture(1e4, 8, 2, 16, GateKind::softmax));
    expect_close(softmax.details.at("gate_step"), .00237137370566);
    EXPECT_EQ(softmax.details.at("gate_levels"), 2549);
    const BoundResult all = routed_mixture_bound(mixture(1e4, 8, 2, 16, GateKind::softmax_all));
    EXPECT_EQ(all.details.at("gate_levels"), 3369);
}

TEST(RoutedMixture, OraclesOfTwoSidesAndMeasuredRadius) {
    RoutedMixture input = mixture(1e4, 8, 2, 16, GateKind::uniform);
    input.two_sided = input.measured = true;
    const BoundResult result = routed_mixture_bound(input);
    expect_close(result.value, 0.539617849764);
    expect_close(result.terms.at("confidence"), 0.0429238284989);
    input.two_sided = false;
    expect_close(routed_mixture_bound(input).terms.at("confidence"), 0.04074304547);
}

TEST(RoutedMixture, OraclesOfManyClasses) {
    RoutedMixture input = mixture(1e6, 16, 2, 64, GateKind::uniform);
    input.classes = 10;
    input.lipschitz = std::numbers::sqrt2;
    input.range = 4;
    input.stacked_norm = 4;
    BoundResult result = routed_mixture_bound(input);
    expect_close(result.value, 0.668822033821);
    expect_close(result.terms.at("expert"), 0.033941125497);
    expect_close(result.terms.at("routing"), 0.629985414663);
    EXPECT_EQ(result.terms.at("gate"), 0);
    expect_close(result.terms.at("confidence"), 0.00489549366136);

    input = mixture(1e6, 64, 8, 64, GateKind::softmax);
    input.classes = 10;
    input.lipschitz = std::numbers::sqrt2;
    input.stacked_norm = 4;
    input.output_bound = 1;
    result = routed_mixture_bound(input);
    expect_close(result.value, 0.502860065201);
    expect_close(result.terms.at("expert"), 0.048);
    expect_close(result.terms.at("routing"), 0.442321546225);
    expect_close(result.terms.at("gate"), 0.0113146455609);
    expect_close(result.terms.at("confidence"), 0.00122387341534);
}

TEST(RoutedMixture, DegenerateShapes) {
    for (const GateKind gate : kGates) {
        SCOPED_TRACE(name_of(gate));
        const BoundResult dense = routed_mixture_bound(mixture(1e4, 1, 1, 16, gate));
        EXPECT_EQ(dense.terms.at("routing"), 0);
        EXPECT_EQ(dense.terms.at("gate"), 0);
        expect_close(dense.terms.at("expert"), .02);
        const BoundResult nobody = routed_mixture_bound(mixture(1e4, 8, 0, 16, gate));
        EXPECT_EQ(nobody.value, nobody.terms.at("confidence")) << "no expert is ever asked";
        for (const double samples : {1.0, 2.0, 1e15}) {
            for (const double experts : {2.0, 65536.0}) {
                for (const double top_k : {1.0, experts}) {
                    const BoundResult result =
                        routed_mixture_bound(mixture(samples, experts, top_k, 1024, gate));
                    EXPECT_TRUE(std::isfinite(result.value)) << samples << " " << experts << " " << top_k;
                    EXPECT_TRUE(samples > 2 || result.vacuous);
                }
            }
        }
    }
    const BoundResult all = routed_mixture_bound(mixture(1e4, 8, 8, 16, GateKind::uniform));
    EXPECT_EQ(all.terms.at("routing"), 0) << "all experts, equal weights: nothing is routed";
    EXPECT_GT(routed_mixture_bound(mixture(1e4, 8, 8, 16, GateKind::softmax)).terms.at("routing"), 0);
    const BoundResult one = routed_mixture_bound(mixture(1e4, 8, 1, 16, GateKind::softmax));
    EXPECT_EQ(one.value, routed_mixture_bound(mixture(1e4, 8, 1, 16, GateKind::uniform)).value)
        << "a softmax over one expert is the weight 1";
}

TEST(RoutedMixture, FallsWithSamplesAndGrowsWithTheClass) {
    for (const GateKind gate : kGates) {
        SCOPED_TRACE(name_of(gate));
        double last = HUGE_VAL;
        for (double samples = 1; samples <= 1e15; samples *= 3) {
            const double value = routed_mixture_bound(mixture(samples, 16, 4, 64, gate)).value;
            EXPECT_LT(value, last) << samples;
            last = value;
        }
        for (const double experts : {8.0, 16.0, 64.0}) {
            RoutedMixture input = mixture(1e5, experts, 4, 64, gate);
            const double here = routed_mixture_bound(input).value;
            input.router.experts *= 2;
            EXPECT_LT(here, routed_mixture_bound(input).value) << "more experts";
            input = mixture(1e5, experts, 4, 128, gate);
            EXPECT_LE(here, routed_mixture_bound(input).value) << "a wider router";
            input = mixture(1e5, experts, 4, 64, gate);
            input.delta = .01;
            EXPECT_LT(here, routed_mixture_bound(input).value) << "more certainty";
            input = mixture(1e5, experts, 4, 64, gate);
            input.norm = 2;
            EXPECT_LT(here, routed_mixture_bound(input).value) << "larger experts";
            input = mixture(1e5, experts, 4, 64, gate);
            input.shared_experts = 1;
            EXPECT_LT(here, routed_mixture_bound(input).value) << "a shared expert";
            input = mixture(1e5, experts, 4, 64, gate);
            input.expert_layers = 2;
            EXPECT_LT(here, routed_mixture_bound(input).value) << "deeper experts";
        }
    }
}

TEST(RoutedMixture, RankGatesLieBetween) {
    RoutedMixture input = mixture(1e4, 8, 2, 16, GateKind::rank);
    input.rank_weights = {.5, .5};
    const BoundResult equal = routed_mixture_bound(input);
    expect_close(equal.terms.at("expert"), .04);
    EXPECT_GE(equal.terms.at("routing"),
              routed_mixture_bound(mixture(1e4, 8, 2, 16, GateKind::uniform)).terms.at("routing"));
    input.rank_weights = {.8, .2};
    expect_close(routed_mixture_bound(input).details.at("kappa"), 1 / .68);
    input = mixture(1e4, 8, 8, 16, GateKind::rank);
    input.rank_weights.assign(8, .125);
    EXPECT_GT(routed_mixture_bound(input).terms.at("routing"), 0);
}

TEST(RoutedMixture, KEffHelpsWhereItMay) {
    for (const GateKind gate : {GateKind::softmax, GateKind::frozen}) {
        RoutedMixture input = mixture(1e4, 8, 4, 16, gate);
        input.k_eff = 2;
        const BoundResult result = routed_mixture_bound(input);
        expect_close(result.terms.at("expert"), .04);
        EXPECT_TRUE(std::any_of(result.assumptions.begin(), result.assumptions.end(),
                                [](const Assumption& a) { return a.name == "k_eff_guaranteed"; }));
    }
    RoutedMixture uniform = mixture(1e4, 8, 4, 16, GateKind::uniform);
    const double value = routed_mixture_bound(uniform).value;
    uniform.k_eff = 100;
    EXPECT_EQ(routed_mixture_bound(uniform).value, value) << "k itself counts";
}

// ---------------------------------------------------------------- the gate cover
TEST(GateCover, WeightsStayWithinTheRadius) {
    const Philox random(3, "logits");
    double worst = 0;
    for (u64 draw = 0; draw < 20000; ++draw) {
        const int experts = 2 + static_cast<int>(random.bits(draw * 64) % 7);
        const int top_k = 1 + static_cast<int>(random.bits(draw * 64 + 1) % static_cast<u32>(experts));
        const double eta = std::pow(10.0, -3 * random.uniform(draw * 64 + 2));
        const double levels = 1 + std::floor(random.uniform(draw * 64 + 3) * 3 / eta);
        const double spread = std::pow(10.0, 2 * random.uniform(draw * 64 + 4) - 1);
        std::vector<double> logits;
        for (int e = 0; e < experts; ++e) {
            logits.push_back(spread * random.normal(draw * 64 + 8 + static_cast<u64>(e)));
            if (draw % 5 == 0) logits.back() = std::round(logits.back());  // ties
        }
        std::vector<int> order(static_cast<std::size_t>(experts));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
            return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
        });
        const std::vector<int> chosen(order.begin(), order.begin() + top_k);
        for (const std::vector<int>& normalized : {chosen, order}) {
            double total = 0, distance = 0;
            for (const int e : normalized) total += std::exp(logits[static_cast<std::size_t>(e)]);
            const std::vector<double> cover = gate_cover_weights(logits, chosen, normalized, eta, levels);
            for (std::size_t i = 0; i < chosen.size(); ++i)
                distance +=
                    std::abs(std::exp(logits[static_cast<std::size_t>(chosen[i])]) / total - cover[i]);
            const double radius = gate_cover_radius(eta, levels, static_cast<double>(normalized.size()));
            EXPECT_LE(distance, 2 * radius * (1 + 1e-12));
            worst = std::max(worst, distance / (2 * radius));
        }
    }
    EXPECT_GT(worst, .3) << "the inequality is never near: is the cover computed at all?";
}

/// The gate alone fits noise labels: experts +1 and -1, f = 2 s(<v, x>) - 1, x on the unit sphere, v the sum
/// of y_i x_i scaled. True loss 1/2; the gap is (1/2m) sum y_i f(x_i).
double softmax_noise_gap(int samples, int inputs, double scale) {
    const Philox random(11, "sphere");
    const auto width = static_cast<std::size_t>(inputs);
    std::vector<double> x(static_cast<std::size_t>(samples) * width), labels, v(width);
    for (int i = 0; i < samples; ++i) {
        double* const row = x.data() + static_cast<std::size_t>(i) * width;
        double squares = 0;
        for (std::size_t f = 0; f < width; ++f) {
            row[f] = random.normal(static_cast<u64>(i) * width + f);
            squares += row[f] * row[f];
        }
        labels.push_back(i % 2 == 0 ? 1 : -1);  // independent of x
        for (std::size_t f = 0; f < width; ++f) {
            row[f] /= std::sqrt(squares);
            v[f] += labels.back() * row[f];
        }
    }
    const double norm = std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
    double correlation = 0;
    for (int i = 0; i < samples; ++i) {
        const double* const row = x.data() + static_cast<std::size_t>(i) * width;
        const double logit =
            scale * std::sqrt(inputs) * std::inner_product(v.begin(), v.end(), row, 0.0) / norm;
        correlation += labels[static_cast<std::size_t>(i)] * std::tanh(logit / 2);
    }
    return correlation / (2.0 * samples);
}

TEST(GateCover, SoftmaxAloneFitsNoiseBeyondAMaskCount) {
    constexpr int kSamples = 2000, kInputs = 500;
    const double gap = softmax_noise_gap(kSamples, kInputs, 30);
    // What counting masks alone would say: at k = T there is one mask, and no gate term.
    RoutedMixture input = mixture(kSamples, 2, 2, kInputs, GateKind::uniform);
    input.lipschitz = .5;
    const BoundResult masks_only = routed_mixture_bound(input);
    EXPECT_EQ(masks_only.terms.at("routing"), 0);
    const double expert =
        2 * .5 * std::sqrt(2.0 / (1.0 * kSamples));  // k_eff 1, the smallest a softmax allows
    const double confidence = 3 * std::sqrt(std::log(2 / .05) / (2 * kSamples));
    EXPECT_GT(gap, expert + masks_only.terms.at("confidence"));
    EXPECT_GT(gap, expert + confidence) << "0.1227, with the wider confidence term as well";
    input.gate = GateKind::softmax;
    EXPECT_LT(gap, routed_mixture_bound(input).value);
    EXPECT_GT(gap, .15);
}

}  // namespace
}  // namespace moesaic
