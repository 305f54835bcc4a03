#include "runtime/metrics/bounds/bound_inputs.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/compression.h"

namespace moesaic {

namespace {

using In = BoundInputs;

constexpr double kHuge = 1e300, kCount = 1e15, kTiny = 1e-300;

constexpr BoundInputField number(std::string_view name, In::Number In::*member, double low, double high,
                                 std::string_view help) {
    return {name, help, member, nullptr, low, high, false};
}
constexpr BoundInputField whole(std::string_view name, In::Number In::*member, double low, double high,
                                std::string_view help) {
    return {name, help, member, nullptr, low, high, true};
}
constexpr BoundInputField numbers(std::string_view name, In::Numbers In::*member, double low, double high,
                                  std::string_view help) {
    return {name, help, nullptr, member, low, high, false};
}
constexpr BoundInputField wholes(std::string_view name, In::Numbers In::*member, double low, double high,
                                 std::string_view help) {
    return {name, help, nullptr, member, low, high, true};
}

constexpr BoundInputField kFields[] = {
    whole("samples", &In::samples, 1, kCount, "Independent training examples: documents, not tokens"),
    whole("experts", &In::experts, 1, 65536, "Experts T"),
    whole("top_k", &In::top_k, 0, 65536, "Active experts k"),
    number("delta", &In::delta, kTiny, 1 - 1e-12, "Chance that the statement fails"),
    number("lipschitz", &In::lipschitz, 0, kHuge,
           "Lipschitz constant of the loss: C of a scalar output, L2 of K logits"),
    number("range", &In::range, kTiny, kHuge, "The loss lies in [0, range]"),
    whole("classes", &In::classes, 0, kCount, "Logits K of the output; 0: a scalar"),
    number("rademacher", &In::rademacher, 0, kHuge, "Rademacher complexity R_m(H) of the experts' class"),
    number("natarajan", &In::natarajan, 0, kHuge, "Natarajan dimension d_N of the routing masks"),
    number("routed_tokens", &In::routed_tokens, 1, kCount,
           "Rows that an example routes, on average; its loss is their mean"),
    whole("router_inputs", &In::router_inputs, 0, kCount, "Width of what the router reads"),
    wholes("router_hidden", &In::router_hidden, 1, kCount, "Hidden widths of a ReLU router; none: linear"),
    number("norm", &In::norm, 0, kHuge, "Cap of one expert's norm, or of its distance from the start"),
    number("stacked_norm", &In::stacked_norm, 0, kHuge, "Cap of the norm of all experts; else sqrt(T) norm"),
    number("radius", &In::radius, 0, kHuge, "Cap of the norm of an expert's input"),
    number("output_bound", &In::output_bound, 0, kHuge, "Cap of an expert's output; else norm * radius"),
    number("k_eff", &In::k_eff, kTiny, kHuge, "Floor of 1/sum of squared weights (softmax and frozen gates)"),
    number("expert_layers", &In::expert_layers, 1, 1e6, "Layers of bias-free ReLU experts; 1: linear"),
    whole("shared_experts", &In::shared_experts, 0, 65536, "Experts that every token visits with weight 1"),
    numbers("rank_weights", &In::rank_weights, 0, 1, "Weights of the chosen by rank, adding up to 1"),
    number("complexity", &In::complexity, 0, kHuge,
           "Measured Rademacher complexity of the routed last layer"),

    whole("heldout_samples", &In::heldout_samples, 1, 1e12, "Held-out units (documents)"),
    number("heldout_mean", &In::heldout_mean, 0, kHuge, "Their mean loss, in [0, range]"),
    number("heldout_variance", &In::heldout_variance, 0, kHuge, "Variance of their losses"),
    whole("heldout_errors", &In::heldout_errors, 0, 1e12, "How many of them were wrong (0-1 loss)"),
    whole("fresh_samples", &In::fresh_samples, 1, kCount, "Units met for the first time in a window"),
    number("fresh_mean", &In::fresh_mean, 0, kHuge, "Their mean loss before the update, in [0, range]"),
    number("fresh_past_mean", &In::fresh_past_mean, 0, kHuge, "Mean loss before the window, to tune by"),
    number("train_loss", &In::train_loss, 0, kHuge, "Mean training loss, in [0, range]"),
    number("bits", &In::bits, 0, kHuge, "Length of a prefix-free code of the weights"),
    whole("subsample", &In::subsample, 1, kCount, "Training documents that train_loss was estimated on"),
    whole("vocabulary", &In::vocabulary, 2, kCount, "Tokens; with smoothing it sets range"),
    number("smoothing", &In::smoothing, kTiny, 1 - 1e-12, "Weight a of the uniform prediction"),
    whole("gibbs_samples", &In::gibbs_samples, 1, kCount, "Certifying examples of PAC-Bayes"),
    number("gibbs_loss", &In::gibbs_loss, 0, 1, "Loss of the randomised model on them, in [0, 1]"),
    number("gibbs_deviation", &In::gibbs_deviation, 0, 1,
           "Its mean squared deviation from a centre fixed beforehand"),
    number("divergence", &In::divergence, 0, kHuge, "KL of posterior and prior, nats"),
    number("catoni_lambda", &In::catoni_lambda, 1e-12, 1e6, "lambda of Catoni's bound, fixed beforehand"),
    number("bernstein_lambda", &In::bernstein_lambda, 1e-12, 1 - 1e-12,
           "lambda of PAC-Bayes in Bernstein's form, fixed beforehand"),
    number("gate_epsilon", &In::gate_epsilon, 0, 700, "Privacy of a stochastic gate"),
    number("gate_entropy", &In::gate_entropy, 0, 100, "Its entropy at any fixed input, nats"),

    number("margin", &In::margin, kTiny, kHuge, "Margin of the correct logit"),
    numbers("layer_spectral", &In::layer_spectral, kTiny, kHuge, "Spectral norm of each layer"),
    numbers("layer_frobenius", &In::layer_frobenius, kTiny, kHuge, "Frobenius norm of each layer"),
    numbers("layer_rows", &In::layer_rows, kTiny, kHuge, "Sum of the norms of each layer's rows"),
    wholes("expert_widths", &In::expert_widths, 1, 1e9, "Widths of an expert, inputs to outputs"),
    number("error", &In::error, kTiny, kHuge, "Uniform error to reach"),
    number("smoothness", &In::smoothness, kTiny, kHuge, "Smoothness beta of the target"),
    number("dimension", &In::dimension, 1, kHuge, "Intrinsic dimension of the inputs"),
    whole("layers", &In::layers, 1, kCount, "Layers"),
    whole("sequence_length", &In::sequence_length, 1, kCount, "Tokens of a sequence"),
    number("attention_parameters", &In::attention_parameters, 0, kHuge,
           "Parameters of one layer's attention"),
    number("expert_parameters", &In::expert_parameters, 0, kHuge, "Parameters of one expert"),

    number(
        "parameters", &In::parameters, 1, kHuge,
        "Parameters N without embeddings: of the dense base (clark), of all (krajewski, data_constrained)"),
    number("active_parameters", &In::active_parameters, 1, kHuge,
           "Active parameters without embeddings; of one expert (momlp_size)"),
    number("tokens", &In::tokens, 1, kHuge, "Tokens processed"),
    number("unique_tokens", &In::unique_tokens, 1, kHuge, "Unique tokens among them"),
    number("granularity", &In::granularity, kTiny, kHuge, "Granularity G of the experts"),
    number("task_complexity", &In::task_complexity, kTiny, kHuge, "Rules that a token must combine"),
};

}  // namespace

std::span<const BoundInputField> bound_input_fields() {
    return kFields;
}

const BoundInputField& bound_input_field(std::string_view name) {
    const auto found = std::find_if(std::begin(kFields), std::end(kFields),
                                    [&](const BoundInputField& f) { return f.name == name; });
    MOESAIC_ASSERT(found != std::end(kFields), "no input '{}'", name);
    return *found;
}

bool is_given(const BoundInputs& inputs, const BoundInputField& field) {
    return field.number ? (inputs.*field.number).has_value() : !(inputs.*field.list).empty();
}

namespace {

/// Norms are by layer: the bounds go through all lists at once.
void compare_layers(const BoundInputs& inputs, std::vector<BoundInputConflict>& found) {
    for (const std::string_view name : {"layer_frobenius", "layer_rows"}) {
        const std::size_t numbers = (inputs.*bound_input_field(name).list).size();
        const std::size_t layers = inputs.layer_spectral.size();
        if (numbers == 0 || layers == 0 || numbers == layers) continue;
        found.push_back({name, fmt::format("{} numbers for the {} layers of layer_spectral", numbers, layers),
                         "one of each layer"});
    }
}

}  // namespace

double loss_range(const BoundInputs& inputs) {
    if (inputs.vocabulary && inputs.smoothing) return smoothed_range(*inputs.smoothing, *inputs.vocabulary);
    return *inputs.range;
}

std::vector<BoundInputConflict> conflicts(const BoundInputs& inputs) {
    std::vector<BoundInputConflict> found;
    const auto above = [&](std::string_view name, const In::Number& value, std::string_view limit_name,
                           const In::Number& limit, std::string_view hint) {
        if (value && limit && *value > *limit) {
            found.push_back(
                {name, fmt::format("{} is above {} {}", *value, limit_name, *limit), std::string(hint)});
        }
    };
    above("top_k", inputs.top_k, "experts", inputs.experts, "a token visits each expert at most once");
    above("heldout_errors", inputs.heldout_errors, "heldout_samples", inputs.heldout_samples,
          "count the units that were wrong");
    constexpr std::string_view kRange = "give range, or losses divided by it";
    const In::Number range = loss_range(inputs);
    above("heldout_mean", inputs.heldout_mean, "range", range, kRange);
    above("fresh_mean", inputs.fresh_mean, "range", range, kRange);
    above("fresh_past_mean", inputs.fresh_past_mean, "range", range, kRange);
    above("train_loss", inputs.train_loss, "range", range, kRange);
    above("unique_tokens", inputs.unique_tokens, "tokens", inputs.tokens,
          "unique tokens are among those processed");
    // Weights that sum to 1 spread over at most k; softmax over all experts leaves the chosen less than that.
    constexpr double kRounding = 1e-6;
    const bool sums_to_1 = inputs.gate != GateKind::softmax_all;
    if (sums_to_1 && inputs.k_eff && inputs.top_k.value_or(0) > 0 &&
        *inputs.k_eff > *inputs.top_k * (1 + kRounding)) {
        found.push_back(
            {"k_eff", fmt::format("{} is above top_k {}", *inputs.k_eff, *inputs.top_k),
             "k weights that sum to 1 have squares that sum to 1/k at least; where the sum is less: "
             "gate softmax-all"});
    }
    compare_layers(inputs, found);
    if (inputs.classes == 1.0)
        found.push_back({"classes", "1 class has nothing to tell apart", "0, or 2 and more"});
    if (!inputs.rank_weights.empty()) {
        double sum = 0;
        for (const double weight : inputs.rank_weights) sum += weight;
        const bool as_many =
            !inputs.top_k || *inputs.top_k == static_cast<double>(inputs.rank_weights.size());
        const bool falling = std::is_sorted(inputs.rank_weights.rbegin(), inputs.rank_weights.rend());
        if (!as_many || !falling || std::abs(sum - 1) > 1e-6) {
            found.push_back({"rank_weights",
                             fmt::format("{} weights with sum {}", inputs.rank_weights.size(), sum),
                             "one per active expert, not increasing, with sum 1"});
        }
    }
    return found;
}

}  // namespace moesaic
