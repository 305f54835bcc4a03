// Everything a bound may ask for, by name: the calculator's options, and what a run fills in.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "runtime/metrics/bounds/routed_mixture.h"

namespace moesaic {

/// Absent numbers are unknown; a bound that needs one is not computed. Those with a value here have a
/// default.
struct BoundInputs {
    using Number = std::optional<double>;
    using Numbers = std::vector<double>;

    // the sample and the mixture
    Number samples, experts, top_k, delta = 0.05, range = 1, lipschitz = 1, classes = 0;
    Number rademacher, natarajan, router_inputs;
    Numbers router_hidden;
    Number norm = 1, stacked_norm, radius = 1, output_bound, k_eff, expert_layers = 1, shared_experts = 0;
    Number routed_tokens = 1;
    Numbers rank_weights;
    std::optional<GateKind> gate;  ///< what the model uses: says which of our bounds speak of it
    bool gate_of_no_kind = false;  ///< it uses none of them: none of our bounds speaks of it
    bool router_bias = true, measured = false, two_sided = false;
    std::optional<bool> layers_below_frozen, caps_a_priori, experts_covered;  ///< as of RoutedMixture
    Number complexity;

    // losses
    Number heldout_samples, heldout_mean, heldout_variance, heldout_errors;
    Number fresh_samples, fresh_mean, fresh_past_mean;
    Number train_loss, bits, subsample, vocabulary, smoothing;
    Number gibbs_samples, gibbs_loss, gibbs_deviation, divergence, catoni_lambda, bernstein_lambda,
        gate_epsilon, gate_entropy = 0;

    // networks, prototypes, transformers
    Number margin;
    Numbers layer_spectral, layer_frobenius, layer_rows, expert_widths;
    Number error, smoothness = 1, dimension;
    Number layers, sequence_length, attention_parameters, expert_parameters;

    // scaling laws
    Number parameters, active_parameters, tokens, unique_tokens, granularity;
    Number task_complexity;
};

/// One number or list of BoundInputs.
struct BoundInputField {
    std::string_view name;  ///< as the member; the option is "--" + name with "-" for "_"
    std::string_view help;  ///< one line, with units
    BoundInputs::Number BoundInputs::*number = nullptr;
    BoundInputs::Numbers BoundInputs::*list = nullptr;
    double low = 0, high = 0;  ///< allowed, both included
    bool whole = false;
};
[[nodiscard]] std::span<const BoundInputField> bound_input_fields();
/// The field of that name; asserts that it is there.
[[nodiscard]] const BoundInputField& bound_input_field(std::string_view name);
[[nodiscard]] bool is_given(const BoundInputs& inputs, const BoundInputField& field);

/// The range of the losses: that of smoothed bits where vocabulary and smoothing are given, else `range`.
[[nodiscard]] double loss_range(const BoundInputs& inputs);

/// A condition between two inputs that does not hold: the later one's name and what is wrong.
struct BoundInputConflict {
    std::string_view field;
    std::string message, hint;
};
[[nodiscard]] std::vector<BoundInputConflict> conflicts(const BoundInputs& inputs);

}  // namespace moesaic
