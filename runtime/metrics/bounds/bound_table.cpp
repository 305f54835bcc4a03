#include "runtime/metrics/bounds/bound_table.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/error.h"
#include "runtime/metrics/bounds/compression.h"
#include "runtime/metrics/bounds/divergence.h"
#include "runtime/metrics/bounds/fresh_data.h"
#include "runtime/metrics/bounds/frozen_features.h"
#include "runtime/metrics/bounds/norms.h"
#include "runtime/metrics/bounds/pac_bayes.h"
#include "runtime/metrics/bounds/prototype_mixture.h"
#include "runtime/metrics/bounds/published.h"
#include "runtime/metrics/bounds/routed_mixture.h"
#include "runtime/metrics/bounds/scaling_laws.h"
#include "runtime/metrics/bounds/test_set.h"
#include "runtime/metrics/bounds/transformer_rate.h"

namespace moesaic {

namespace {

using In = BoundInputs;

template <bool exact_binomial>
BoundResult published(const In& in) {
    return published_bound({*in.samples, *in.experts, *in.top_k, *in.lipschitz, *in.rademacher, *in.natarajan,
                            *in.delta, loss_range(in), exact_binomial});
}

AssumptionStatus gate_status(const In& in, GateKind gate) {
    if (in.gate_of_no_kind) return AssumptionStatus::violated;
    if (!in.gate) return AssumptionStatus::unknown;
    return *in.gate == gate ? AssumptionStatus::holds : AssumptionStatus::violated;
}

/// Where the router's width is not given, it follows from d_N: masks of a linear router on d inputs with k =
/// 1 have Natarajan dimension at least (T-1)(d-1) (Shalev-Shwartz and Ben-David, Corollary 29.8). Masks alone
/// are counted from d_N itself, for any router.
RouterClass router_of(const In& in, GateKind gate) {
    RouterClass router;
    router.experts = *in.experts;
    router.top_k = *in.top_k;
    router.bias = in.router_bias;
    router.hidden = in.router_hidden;
    router.inputs = in.router_inputs.value_or(0);
    if (!in.router_inputs && in.natarajan) {
        if (gate == GateKind::uniform) {
            router.natarajan = in.natarajan;
        } else if (*in.experts > 1) {
            router.inputs = std::floor(*in.natarajan / (*in.experts - 1)) + (in.router_bias ? 0 : 1);
            router.hidden.clear();
        }
    }
    return router;
}

template <GateKind gate>
BoundResult corrected(const In& in) {
    RoutedMixture mixture;
    mixture.samples = *in.samples;
    mixture.tokens = *in.routed_tokens;
    mixture.delta = *in.delta;
    mixture.router = router_of(in, gate);
    mixture.gate = gate;
    mixture.rank_weights = in.rank_weights;
    mixture.lipschitz = *in.lipschitz;
    mixture.classes = *in.classes;
    mixture.range = loss_range(in);
    mixture.norm = *in.norm;
    mixture.stacked_norm = in.stacked_norm;
    mixture.expert_layers = *in.expert_layers;
    mixture.shared_experts = *in.shared_experts;
    mixture.radius = *in.radius;
    mixture.output_bound = in.output_bound;
    mixture.k_eff = in.k_eff;
    mixture.measured = in.measured;
    mixture.two_sided = in.two_sided;
    mixture.layers_below_frozen = in.layers_below_frozen;
    mixture.caps_a_priori = in.caps_a_priori;
    mixture.experts_covered = in.experts_covered;
    BoundResult result = routed_mixture_bound(mixture);
    result.assume("gate_covered", gate_status(in, gate),
                  "the model's gates are of the kind the bound is about");
    if (gate != GateKind::frozen && !in.router_inputs) {
        result.assume("router_known", AssumptionStatus::unknown,
                      "the router's size follows from the Natarajan dimension: give router_inputs instead");
    }
    return result;
}

BoundResult frozen_features(const In& in) {
    return frozen_features_bound(
        {*in.samples, *in.delta, *in.complexity, *in.lipschitz, *in.classes, loss_range(in)});
}

HeldoutLosses heldout_losses(const In& in) {
    return {*in.heldout_samples, in.heldout_mean.value_or(0), in.heldout_variance.value_or(0), loss_range(in),
            *in.delta};
}
BoundResult heldout(const In& in) {
    return heldout_kl_bound(heldout_losses(in));
}
BoundResult heldout_hoeffding(const In& in) {
    return hoeffding_bound(heldout_losses(in));
}
BoundResult heldout_bernstein(const In& in) {
    return empirical_bernstein_bound(heldout_losses(in));
}
BoundResult heldout_binomial(const In& in) {
    return clopper_pearson_bound(*in.heldout_errors, *in.heldout_samples, *in.delta);
}

/// The Catoni form of fresh_data.h for one window, its lambda from the losses before it.
BoundResult prequential(const In& in) {
    const double lambda = catoni_lambda(*in.fresh_past_mean / loss_range(in), *in.fresh_samples, *in.delta);
    const BoundResult scaled =
        catoni_bound({*in.fresh_samples, *in.fresh_mean / loss_range(in), 0, *in.delta}, lambda);
    BoundResult result = risk_bound(*in.fresh_mean, loss_range(in) * scaled.value, loss_range(in));
    result.details.add("lambda", lambda);
    return result
        .assume("fresh", AssumptionStatus::unknown,
                "each unit's loss was taken before any update had seen it, in evaluation mode")
        .assume("window_average", AssumptionStatus::holds,
                "the statement is about the average of the models in the window");
}

CompressedModel compressed(const In& in) {
    return {*in.samples, *in.train_loss, *in.bits, loss_range(in), *in.delta};
}
BoundResult occam(const In& in) {
    return occam_bound(compressed(in));
}
BoundResult occam_kl(const In& in) {
    return occam_kl_bound(compressed(in));
}
BoundResult lotfi(const In& in) {
    return lotfi_bound(compressed(in), *in.subsample);
}

PacBayes pac_bayes(const In& in) {
    return {*in.gibbs_samples, *in.gibbs_loss, *in.divergence, *in.delta};
}
BoundResult pac_bayes_kl(const In& in) {
    return maurer_bound(pac_bayes(in));
}
BoundResult pac_bayes_mcallester(const In& in) {
    return mcallester_bound(pac_bayes(in));
}
BoundResult pac_bayes_catoni(const In& in) {
    return catoni_bound(pac_bayes(in), *in.catoni_lambda);
}
BoundResult pac_bayes_bernstein(const In& in) {
    return bernstein_pac_bayes_bound(pac_bayes(in), *in.gibbs_deviation, *in.bernstein_lambda);
}
BoundResult private_gate(const In& in) {
    return private_gate_bound({*in.gibbs_samples, *in.gibbs_loss, *in.experts, *in.gate_epsilon,
                               *in.gate_entropy, *in.divergence, *in.delta});
}

NormMeasure norm_measure(const In& in) {
    NormMeasure measure;
    for (std::size_t layer = 0; layer < in.layer_spectral.size(); ++layer) {
        const auto of = [&](const In::Numbers& list) { return layer < list.size() ? list[layer] : 1.0; };
        measure.layers.push_back({of(in.layer_spectral), of(in.layer_frobenius), of(in.layer_rows)});
    }
    measure.samples = *in.samples;
    measure.margin = *in.margin;
    measure.radius = *in.radius;
    for (const double width : in.expert_widths) measure.width = std::max(measure.width, width);
    return measure;
}
BoundResult spectral_norm(const In& in) {
    return spectral_norm_measure(norm_measure(in));
}
BoundResult pac_bayes_norm(const In& in) {
    return pac_bayes_norm_measure(norm_measure(in));
}

BoundResult momlp_vc(const In& in) {
    return prototype_mixture_vc({*in.experts, in.expert_widths});
}
BoundResult momlp_gap(const In& in) {
    return prototype_mixture_gap({*in.experts, in.expert_widths}, *in.samples, *in.delta);
}
BoundResult momlp_size(const In& in) {
    return prototype_mixture_size(*in.lipschitz, *in.error, *in.dimension, *in.active_parameters);
}

BoundResult moe_transformer(const In& in) {
    return transformer_rate({*in.samples, *in.layers, *in.sequence_length, *in.experts, *in.top_k,
                             *in.attention_parameters, *in.expert_parameters, *in.smoothness, *in.dimension});
}

BoundResult clark(const In& in) {
    return clark_loss(*in.parameters, *in.experts);
}
BoundResult krajewski(const In& in) {
    return krajewski_loss(*in.parameters, *in.tokens, *in.granularity);
}
BoundResult ludziejewski(const In& in) {
    return ludziejewski_loss(*in.active_parameters, *in.tokens, *in.experts);
}
BoundResult data_constrained(const In& in) {
    return data_constrained_loss(*in.parameters, *in.unique_tokens, *in.tokens);
}
BoundResult active_experts(const In& in) {
    ActiveExpertsTradeOff trade_off;
    trade_off.samples = *in.samples;
    trade_off.experts = *in.experts;
    trade_off.natarajan = *in.natarajan;
    trade_off.complexity = *in.task_complexity;
    return best_active_experts(trade_off);
}

using enum BoundKind;

constexpr Bound kBounds[] = {
    {"heldout", risk, "kl limit from held-out losses", "Hoeffding 1963, (2.1)",
     "heldout_samples heldout_mean", heldout},
    {"heldout_binomial", risk, "exact limit from held-out errors", "Clopper and Pearson 1934",
     "heldout_samples heldout_errors", heldout_binomial},
    {"heldout_bernstein", risk, "limit from held-out losses and their variance",
     "Maurer and Pontil 2009, theorem 4", "heldout_samples heldout_mean heldout_variance", heldout_bernstein},
    {"heldout_hoeffding", risk, "limit from held-out losses, closed form", "Hoeffding 1963, theorem 1",
     "heldout_samples heldout_mean", heldout_hoeffding},
    {"prequential", risk, "limit from losses on data met for the first time",
     "Catoni's form; proof in the README", "fresh_samples fresh_mean fresh_past_mean", prequential},
    {"pac_bayes_bernstein", risk, "PAC-Bayes for losses with a small variance, lambda fixed beforehand",
     "Moesaic, proof in the README; cf. Tolstikhin and Seldin 2013",
     "gibbs_samples gibbs_loss gibbs_deviation divergence bernstein_lambda", pac_bayes_bernstein},
    {"pac_bayes_catoni", risk, "PAC-Bayes, lambda fixed beforehand", "Catoni 2007, theorem 1.2.1",
     "gibbs_samples gibbs_loss divergence catoni_lambda", pac_bayes_catoni},
    {"pac_bayes_kl", risk, "PAC-Bayes through the kl inverse", "Maurer 2004, theorem 5",
     "gibbs_samples gibbs_loss divergence", pac_bayes_kl},
    {"pac_bayes_mcallester", risk, "PAC-Bayes, closed form", "McAllester 1999; Maurer 2004",
     "gibbs_samples gibbs_loss divergence", pac_bayes_mcallester},
    {"private_gate", risk, "PAC-Bayes for a private stochastic gate", "Moesaic; cf. arXiv 2410.10397",
     "gibbs_samples gibbs_loss divergence experts gate_epsilon", private_gate},
    {"occam_kl", risk, "compression, through the kl inverse", "Langford 2005", "samples train_loss bits",
     occam_kl},
    {"occam", risk, "compression, closed form", "Langford 2005", "samples train_loss bits", occam},
    {"lotfi", risk, "compression with a subsampled training loss", "Lotfi et al., arXiv 2312.17173",
     "samples train_loss bits subsample", lotfi},

    {"corrected_frozen", gap, "routed layer whose router saw no sample", "Moesaic, theorem 1",
     "samples experts top_k", corrected<GateKind::frozen>},
    {"corrected_uniform", gap, "routed layer, gates 1/k", "Moesaic, theorem 1a",
     "samples experts top_k router_inputs|natarajan", corrected<GateKind::uniform>},
    {"corrected_rank", gap, "routed layer, gates by rank", "Moesaic, theorem 1a",
     "samples experts top_k router_inputs|natarajan rank_weights", corrected<GateKind::rank>},
    {"corrected_softmax", gap, "routed layer, softmax over the chosen", "Moesaic, theorem 1b",
     "samples experts top_k router_inputs|natarajan", corrected<GateKind::softmax>},
    {"corrected_softmax_all", gap, "routed layer, softmax over all, then the chosen", "Moesaic, theorem 1b",
     "samples experts top_k router_inputs|natarajan", corrected<GateKind::softmax_all>},
    {"frozen_features", gap, "routed last layer on frozen features", "Moesaic, theorem 2",
     "samples complexity", frozen_features},
    {"momlp_gap", gap, "mixture of ReLU networks at prototypes", "Moesaic, for the class of arXiv 2402.03460",
     "samples experts expert_widths", momlp_gap},

    {"published", trend, "sparse mixtures, as published", "arXiv 2403.17404, as restated",
     "samples experts top_k rademacher natarajan", published<false>},
    {"published_exact_binomial", trend, "the same with ln C(T, k) itself", "arXiv 2403.17404, as restated",
     "samples experts top_k rademacher natarajan", published<true>},
    {"moe_transformer", trend, "rate for transformers with experts",
     "arXiv 2604.09175, as restated in reviews",
     "samples layers sequence_length experts top_k attention_parameters expert_parameters dimension",
     moe_transformer},

    {"spectral_norm", measure, "spectral complexity over margin", "Bartlett et al. 2017, (1.2)",
     "samples layer_spectral layer_rows margin", spectral_norm},
    {"pac_bayes_norm", measure, "Frobenius over spectral norms, over margin",
     "Neyshabur et al. 2018, theorem 1", "samples layer_spectral layer_frobenius expert_widths margin",
     pac_bayes_norm},

    {"momlp_vc", dimension, "VC dimension of a mixture at prototypes",
     "Moesaic, for the class of arXiv 2402.03460", "experts expert_widths", momlp_vc},
    {"momlp_size", dimension, "experts needed for a uniform error", "Moesaic; cf. arXiv 2402.03460",
     "error dimension active_parameters", momlp_size},
    {"active_experts", dimension, "k that balances two error curves", "Moesaic; not arXiv 2410.13964",
     "samples experts natarajan task_complexity", active_experts},

    {"clark", prediction, "loss against size and experts", "Clark et al., arXiv 2202.01169, equation 3",
     "parameters experts", clark},
    {"krajewski", prediction, "loss against size, data and granularity", "Krajewski et al., arXiv 2402.07871",
     "parameters tokens granularity", krajewski},
    {"ludziejewski", prediction, "loss against active size, data and experts",
     "Ludziejewski et al., arXiv 2502.05172", "active_parameters tokens experts", ludziejewski},
    {"data_constrained", prediction, "loss with repeated data", "Muennighoff et al., arXiv 2305.16264",
     "parameters unique_tokens tokens", data_constrained},
};

std::vector<std::string_view> split(std::string_view text, char at) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(at), text.size());
        parts.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return parts;
}

}  // namespace

std::string_view name_of(BoundKind kind) {
    constexpr std::string_view kNames[] = {"gap", "risk", "trend", "measure", "dimension", "prediction"};
    return kNames[static_cast<std::size_t>(kind)];
}

std::span<const Bound> bound_table() {
    return kBounds;
}

const Bound* find_bound(std::string_view name) {
    const auto* const found =
        std::find_if(std::begin(kBounds), std::end(kBounds), [&](const Bound& b) { return b.name == name; });
    return found == std::end(kBounds) ? nullptr : found;
}

std::vector<std::string> missing_inputs(const Bound& bound, const BoundInputs& inputs) {
    std::vector<std::string> missing;
    for (const std::string_view need : split(bound.needs, ' ')) {
        const std::vector<std::string_view> either = split(need, '|');
        const auto given = [&](std::string_view name) { return is_given(inputs, bound_input_field(name)); };
        if (std::none_of(either.begin(), either.end(), given)) missing.emplace_back(need);
    }
    return missing;
}

}  // namespace moesaic
