#include "layers/balance.h"

#include <algorithm>
#include <numeric>

namespace moesaic {

namespace {

CountedChoices counted_by(BalanceConvention convention) {
    switch (convention) {
        case BalanceConvention::gshard:
            return CountedChoices::first;
        case BalanceConvention::switch_transformer:
            return CountedChoices::most_probable;
        case BalanceConvention::megatron:
        case BalanceConvention::hf:
            break;
    }
    return CountedChoices::all;
}

bool is_global(const ModelSpec& spec) {
    return spec.balance.scope == BalanceScope::global;
}

bool couples_layers(const ModelSpec& spec) {
    return spec.balance.convention == BalanceConvention::hf;
}

/// loss_aux = scale * sum over layers, objects and experts of count * probability_sum, where hf sums counts
/// over layers first. The same number is d loss_aux / d p for each count.
double scale_per_count(const ModelSpec& spec, std::span<const RouterTotals* const> all, double tokens) {
    if (all.empty()) return 0;
    const double object_tokens = is_global(spec) ? tokens : static_cast<double>(all[0]->rows_per_object);
    const auto experts = static_cast<double>(spec.experts);
    const auto layers = static_cast<double>(all.size());
    switch (spec.balance.convention) {
        case BalanceConvention::megatron:
            return experts / (static_cast<double>(spec.top_k) * tokens * object_tokens);
        case BalanceConvention::hf:
            return experts / (layers * layers * tokens * object_tokens);
        case BalanceConvention::gshard:
        case BalanceConvention::switch_transformer:
            break;
    }
    return experts / (tokens * object_tokens);
}

/// The counts that a layer's tokens are measured against: rows of E for each object, or one.
class BalanceCounts {
  public:
    BalanceCounts(const ModelSpec& spec, std::span<const RouterTotals* const> layers,
                  const GlobalBalance& global)
        : experts_(static_cast<std::size_t>(spec.experts)),
          layers_(layers),
          global_(is_global(spec) ? global.counts : std::span<const i64>()),
          all_layers_(couples_layers(spec)) {
        MOESAIC_ASSERT(!is_global(spec) || global_.size() == layers.size() * experts_,
                       "{} counts for {} layers", global_.size(), layers.size());
    }
    [[nodiscard]] std::size_t rows() const {
        if (!global_.empty()) return 1;
        return layers_.empty() ? 0 : layers_[0]->balance_counts.size() / experts_;
    }
    [[nodiscard]] i64 at(std::size_t layer, std::size_t row, std::size_t expert) const {
        if (!all_layers_) return of_layer(layer, row, expert);
        i64 sum = 0;
        for (std::size_t l = 0; l < layers_.size(); ++l) sum += of_layer(l, row, expert);
        return sum;
    }

  private:
    [[nodiscard]] i64 of_layer(std::size_t layer, std::size_t row, std::size_t expert) const {
        if (!global_.empty()) return global_[layer * experts_ + expert];
        return layers_[layer]->balance_counts[row * experts_ + expert];
    }

    std::size_t experts_;
    std::span<const RouterTotals* const> layers_;
    std::span<const i64> global_;
    bool all_layers_;
};

/// A sum by expert whose evenness is measured: rows of E for each object, or one of the whole batch.
struct Sums {
    const ModelSpec& spec;
    std::span<const RouterTotals* const> layers;
    std::vector<double> RouterTotals::*local;
    std::span<const double> global;

    [[nodiscard]] std::span<const double> row(std::size_t layer, std::size_t object) const {
        const auto experts = static_cast<std::size_t>(spec.experts);
        if (is_global(spec)) return global.subspan(layer * experts, experts);
        return std::span<const double>(layers[layer]->*local).subspan(object * experts, experts);
    }
    [[nodiscard]] double object_tokens(std::size_t layer, double tokens) const {
        return is_global(spec) ? tokens : static_cast<double>(layers[layer]->rows_per_object);
    }
};

struct Variation {
    double mean = 0, variance = 0;
};

Variation variation_of(std::span<const double> values) {
    const auto count = static_cast<double>(values.size());
    Variation result;
    for (const double value : values) result.mean += value / count;
    for (const double value : values)
        result.variance += (value - result.mean) * (value - result.mean) / count;
    return result;
}

/// Squared coefficient of variation. The variance, never its root: the root has no derivative where all is
/// even.
double squared_variation(std::span<const double> values) {
    const Variation of = variation_of(values);
    return of.mean == 0 ? 0 : of.variance / (of.mean * of.mean);
}

/// Appends coefficient * d (variance / mean^2) / d value of each expert.
void append_variation_slopes(std::span<const double> values, double coefficient,
                             std::vector<double>& slopes) {
    const auto count = static_cast<double>(values.size());
    const Variation of = variation_of(values);
    for (const double value : values) {
        const double slope =
            of.mean == 0 ? 0 : 2 / (count * of.mean * of.mean) * (value - of.mean - of.variance / of.mean);
        slopes.push_back(coefficient * slope);
    }
}

/// A micro-batch's share of one layer's loss.
double variation_share(const Sums& sums, std::size_t layer, double tokens) {
    const RouterTotals& totals = *sums.layers[layer];
    if (is_global(sums.spec))
        return static_cast<double>(totals.tokens) / tokens * squared_variation(sums.row(layer, 0));
    double share = 0;
    for (i64 object = 0; object < totals.tokens / totals.rows_per_object; ++object) {
        share += sums.object_tokens(layer, tokens) / tokens *
                 squared_variation(sums.row(layer, static_cast<std::size_t>(object)));
    }
    return share;
}

}  // namespace

i64 RouterTotals::chosen() const {
    return std::accumulate(host_counts.begin(), host_counts.end(), i64{0});
}

RouterSumTensors allocate_router_sums(Backend& backend, const BalanceSpec& spec, i64 experts, i64 tokens,
                                      i64 seq_len) {
    RouterSumTensors sums;
    sums.rows_per_object = spec.scope == BalanceScope::sequence ? seq_len : std::max<i64>(tokens, 1);
    sums.counted = counted_by(spec.convention);
    const i64 objects = tokens / sums.rows_per_object;
    for (Tensor* const counts : {&sums.counts, &sums.balance_counts})
        *counts = backend.allocate({objects, experts}, DType::int64);
    for (Tensor* const sum : {&sums.probability_sum, &sums.weight_sum, &sums.load_sum})
        *sum = backend.allocate({objects, experts}, DType::f64);
    sums.z_sum = backend.allocate({objects}, DType::f64);
    return sums;
}

RouterTotals totals_of(StepContext& context, const RouterSumTensors& sums, const Routing& routing) {
    RouterTotals totals;
    totals.tokens = routing.expert.rows();
    totals.choices = routing.expert.elements();
    totals.rows_per_object = sums.rows_per_object;
    const auto to_host = [&]<class T>(const Tensor& from, std::vector<T>& to) {
        to.resize(static_cast<std::size_t>(from.elements()));
        if (!to.empty()) context.backend.copy(context.compute, from, view_of(to.data(), from.shape()));
    };
    to_host(sums.counts, totals.host_counts);
    to_host(sums.balance_counts, totals.balance_counts);
    to_host(sums.probability_sum, totals.probability_sum);
    to_host(sums.weight_sum, totals.weight_sum);
    to_host(sums.load_sum, totals.load_sum);
    to_host(sums.z_sum, totals.z_sum);
    return totals;
}

RouterTotals sum_router(StepContext& context, const ModelSpec& spec, i64 seq_len, const RouterOutput& output,
                        const Routing& routing) {
    RouterSumTensors sums =
        allocate_router_sums(context.backend, spec.balance, spec.experts, routing.expert.rows(), seq_len);
    context.backend.router_sums(context.compute, {.probability = output.probability,
                                                  .log_sum_exp = output.log_sum_exp,
                                                  .load_probability = output.load_probability,
                                                  .index = routing.expert,
                                                  .weight = routing.weight,
                                                  .rows_per_object = sums.rows_per_object,
                                                  .counted = sums.counted,
                                                  .counts = sums.counts,
                                                  .balance_counts = sums.balance_counts,
                                                  .probability_sum = sums.probability_sum,
                                                  .weight_sum = sums.weight_sum,
                                                  .load_sum = sums.load_sum,
                                                  .z_sum = sums.z_sum});
    return totals_of(context, sums, routing);
}

BalanceTerms balance_terms(const ModelSpec& spec, std::span<const RouterTotals* const> layers,
                           const GlobalBalance& global) {
    const BalanceCounts counts(spec, layers, global);
    const Sums weight{spec, layers, &RouterTotals::weight_sum, global.weight};
    const Sums load{spec, layers, &RouterTotals::load_sum, global.load};
    const auto experts = static_cast<std::size_t>(spec.experts);
    const double scale = scale_per_count(spec, layers, global.tokens);
    BalanceTerms sum;
    for (std::size_t layer = 0; layer < layers.size(); ++layer) {
        const RouterTotals& totals = *layers[layer];
        double products = 0;
        for (std::size_t i = 0; i < totals.probability_sum.size(); ++i) {
            const std::size_t row = counts.rows() == 1 ? 0 : i / experts;
            products += static_cast<double>(counts.at(layer, row, i % experts)) * totals.probability_sum[i];
        }
        sum.aux += products * scale;
        double z = 0;
        for (const double one : totals.z_sum) z += one / global.tokens;
        sum.z += z;
        if (spec.balance.importance > 0) sum.importance += variation_share(weight, layer, global.tokens);
        if (spec.balance.load > 0) sum.load += variation_share(load, layer, global.tokens);
    }
    return sum;
}

void balance_factors(const ModelSpec& spec, std::span<const RouterTotals* const> layers,
                     const GlobalBalance& global, BalanceFactors& to) {
    const BalanceCounts counts(spec, layers, global);
    const auto experts = static_cast<std::size_t>(spec.experts);
    to.rows = static_cast<i64>(counts.rows());
    to.probability.clear();
    to.weight.clear();
    to.load.clear();
    const double scale = spec.balance.aux * scale_per_count(spec, layers, global.tokens);
    for (std::size_t layer = 0; layer < layers.size() && spec.balance.aux > 0; ++layer) {
        for (std::size_t i = 0; i < counts.rows() * experts; ++i) {
            to.probability.push_back(scale * static_cast<double>(counts.at(layer, i / experts, i % experts)));
        }
    }
    const auto append = [&](const Sums& sums, double coefficient, std::vector<double>& factors) {
        for (std::size_t layer = 0; layer < layers.size() && coefficient > 0; ++layer) {
            for (std::size_t row = 0; row < counts.rows(); ++row) {
                const double share = sums.object_tokens(layer, global.tokens) / global.tokens;
                append_variation_slopes(sums.row(layer, row), coefficient * share, factors);
            }
        }
    };
    append({spec, layers, &RouterTotals::weight_sum, global.weight}, spec.balance.importance, to.weight);
    append({spec, layers, &RouterTotals::load_sum, global.load}, spec.balance.load, to.load);
}

double perfect_balance(const ModelSpec& spec) {
    return static_cast<double>(couples_layers(spec) ? spec.top_k : spec.expert_layers());
}

std::string_view name_of(BalanceConvention convention) {
    switch (convention) {
        case BalanceConvention::megatron:
            return "megatron";
        case BalanceConvention::gshard:
            return "gshard";
        case BalanceConvention::hf:
            return "hf";
        case BalanceConvention::switch_transformer:
            return "switch";
    }
    return "";
}

std::string describe_balance(const ModelSpec& spec) {
    if (spec.expert_layers() == 0) return "";
    return fmt::format("convention {}, {} at perfect balance{}", name_of(spec.balance.convention),
                       perfect_balance(spec),
                       couples_layers(spec) ? "" : fmt::format(" ({} layers)", spec.expert_layers()));
}

}  // namespace moesaic
