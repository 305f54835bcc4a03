#include "runtime/metrics/bounds/routed_mixture.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "runtime/base/error.h"

namespace moesaic {

namespace {

struct RoutingTerms {
    double nats = 0, routing = 0, gate = 0;
    std::optional<double> eta, levels;  // of the best gate cover
};

double routed_rows(const RoutedMixture& input) {
    return input.samples * input.tokens;
}

double routing_term(const RoutedMixture& input, double nats) {
    return input.range * std::sqrt(2 * nats / input.samples);
}

RoutingTerms mask_terms(const RoutedMixture& input, double nats) {
    return {nats, routing_term(input, nats), 0, {}, {}};
}

/// The least of routing + gate over steps eta = 1 ... 1e-10. The inequality holds for each, so that choosing
/// costs nothing.
RoutingTerms softmax_terms(const RoutedMixture& input, double output_bound) {
    const RouterClass& router = input.router;
    const double normalized = input.gate == GateKind::softmax ? router.top_k : router.experts;
    if (router.experts <= 1 || router.top_k <= 0) return {};
    if (normalized <= 1) return mask_terms(input, ln_masks(routed_rows(input), router));
    RoutingTerms best;
    double least = std::numeric_limits<double>::infinity();
    for (int step = 0; step <= 80; ++step) {
        const double eta = std::pow(10.0, -step / 8.0);
        const double excess = std::expm1(eta);
        const double levels =
            normalized - 1 > excess ? std::max(1.0, std::ceil(std::log((normalized - 1) / excess) / eta)) : 1;
        const double nats = ln_gate_cells(routed_rows(input), router, levels, normalized);
        const double gate = 4 * input.lipschitz * output_bound * gate_cover_radius(eta, levels, normalized);
        const double routing = routing_term(input, nats);
        if (routing + gate < least) {
            least = routing + gate;
            best = {nats, routing, gate, eta, levels};
        }
    }
    return best;
}

RoutingTerms routing_terms(const RoutedMixture& input, double output_bound) {
    switch (input.gate) {
        case GateKind::uniform:
            return mask_terms(input, ln_masks(routed_rows(input), input.router));
        case GateKind::rank:
            return mask_terms(input, ln_ordered_masks(routed_rows(input), input.router));
        case GateKind::softmax:
        case GateKind::softmax_all:
            return softmax_terms(input, output_bound);
        case GateKind::frozen:
            break;
    }
    return {};
}

/// The mean of sum_j w_j^2 over examples, at most: 1/kappa, and 1 for each shared expert.
double squared_weights(const RoutedMixture& input) {
    if (input.router.top_k <= 0) return input.shared_experts;
    double squares = 1;
    if (input.gate == GateKind::uniform) {
        squares = 1 / input.router.top_k;
    } else if (input.gate == GateKind::rank) {
        squares = 0;
        for (const double weight : input.rank_weights) squares += weight * weight;
    } else if (input.k_eff) {
        squares = 1 / *input.k_eff;
    }
    return squares + input.shared_experts;
}

double expert_term(const RoutedMixture& input) {
    const double stacked =
        input.stacked_norm.value_or(std::sqrt(input.router.experts + input.shared_experts) * input.norm);
    // Size-independent factor of bias-free ReLU networks: Golowich, Rakhlin, Shamir 2018, theorem 1.
    const double depth_factor =
        input.expert_layers <= 1 ? 1 : std::sqrt(2 * std::numbers::ln2 * input.expert_layers) + 1;
    // Maurer 2016; a loss that is the mean over several rows is of several outputs too.
    const double several = input.classes > 0 || input.tokens > 1 ? std::numbers::sqrt2 : 1;
    const double outputs = several * (input.classes > 0 ? std::sqrt(input.classes - 1) : 1);
    return 2 * input.lipschitz * outputs * stacked * depth_factor * input.radius *
           std::sqrt(squared_weights(input) / input.samples);
}

AssumptionStatus status_of(const std::optional<bool>& condition) {
    if (!condition) return AssumptionStatus::unknown;
    return *condition ? AssumptionStatus::holds : AssumptionStatus::violated;
}

void add_assumptions(const RoutedMixture& input, BoundResult& result) {
    using enum AssumptionStatus;
    result.assume_independent_samples()
        .assume_loss_in_range()
        .assume("norms_a_priori", status_of(input.caps_a_priori),
                "the norm caps were fixed before the sample was seen")
        .assume(
            "radius_apriori", input.measured ? holds : status_of(input.caps_a_priori),
            "the input radius was fixed beforehand, or the wider confidence term for a measured one is used")
        .assume("layers_below_frozen", status_of(input.layers_below_frozen),
                "everything below the routed layer is frozen or was trained on other data")
        .assume("experts_covered", status_of(input.experts_covered),
                "the model's outputs are the weighted sum of experts that are linear, or bias-free ReLU "
                "networks with a scalar output");
    if (input.gate == GateKind::frozen) {
        result.assume("router_independent", unknown,
                      "the router does not depend on the sample (hash, random, or trained on other data)");
    }
    if (input.k_eff && input.gate != GateKind::uniform && input.gate != GateKind::rank) {
        result.assume(
            "k_eff_guaranteed", unknown,
            "sum_j w_j^2 <= 1/k_eff for every example and every router of the class (frozen router: for "
            "every example of this one)");
    }
    if (input.expert_layers > 1) {
        result.assume("scalar_relu_experts", input.classes > 0 ? violated : unknown,
                      "ReLU experts have no biases and a scalar output");
    }
}

}  // namespace

std::string_view name_of(GateKind gate) {
    constexpr std::string_view kNames[] = {"uniform", "rank", "softmax", "softmax-all", "frozen"};
    return kNames[static_cast<std::size_t>(gate)];
}

BoundResult routed_mixture_bound(const RoutedMixture& input) {
    const double output_bound = input.output_bound.value_or(input.norm * input.radius);
    const RoutingTerms routing = routing_terms(input, output_bound);
    BoundTerms terms;
    terms.add("expert", expert_term(input));
    terms.add("routing", routing.routing);
    terms.add("gate", routing.gate);
    const double events = (input.measured ? 2 : 1) + (input.two_sided ? 1 : 0);
    terms.add("confidence",
              (input.measured ? 3 : 1) * confidence_term(input.range, events, input.delta, input.samples));
    BoundResult result = sum_of_terms(std::move(terms), input.range);
    result.details.add("samples", input.samples);
    result.details.add("routed_rows", routed_rows(input));
    result.details.add("routing_nats", routing.nats);
    result.details.add("kappa", 1 / squared_weights(input));
    if (routing.eta) {
        result.details.add("gate_step", *routing.eta);
        result.details.add("gate_levels", *routing.levels);
    }
    add_assumptions(input, result);
    return result;
}

double gate_cover_radius(double eta, double levels, double normalized) {
    return std::expm1(eta) + (normalized - 1) * std::exp(-levels * eta);
}

std::vector<double> gate_cover_weights(const std::vector<double>& logits, const std::vector<int>& chosen,
                                       const std::vector<int>& normalized, double eta, double levels) {
    MOESAIC_ASSERT(!normalized.empty(), "a softmax over no expert of {}", logits.size());
    const auto logit = [&](int expert) { return logits[static_cast<std::size_t>(expert)]; };
    double top = logit(normalized.front());
    for (const int expert : normalized) top = std::max(top, logit(expert));
    const auto quantised = [&](int expert) {
        return std::exp(-eta * std::min(std::floor((top - logit(expert)) / eta), levels));
    };
    double total = 0;
    for (const int expert : normalized) total += quantised(expert);
    std::vector<double> weights;
    for (const int expert : chosen) weights.push_back(quantised(expert) / total);
    return weights;
}

}  // namespace moesaic
