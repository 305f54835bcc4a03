// Values of the balance losses as other programs compute them, and their derivatives by differences.
#include "layers/balance.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "comm/self_communicator.h"
#include "tests/support/layer_inputs.h"

namespace moesaic {
namespace {

constexpr BalanceConvention kConventions[] = {BalanceConvention::megatron, BalanceConvention::gshard,
                                              BalanceConvention::hf, BalanceConvention::switch_transformer};
constexpr BalanceScope kScopes[] = {BalanceScope::sequence, BalanceScope::micro, BalanceScope::global};

ModelSpec spec_with(BalanceConvention convention, BalanceScope scope, i64 experts = 4, int layers = 1) {
    ModelSpec spec;
    spec.layers = layers;
    spec.experts = experts;
    spec.top_k = 2;
    spec.balance = {.aux = 1, .z = 1, .scope = scope, .convention = convention};
    return spec;
}

/// Rows of logits through softmax, top-k and sum_router.
RouterTotals totals_of(const ModelSpec& spec, const std::vector<double>& values, i64 seq_len) {
    SelfCommunicator world;
    RankSetup rank(world, 1, static_cast<int>(spec.experts));
    const i64 tokens = static_cast<i64>(values.size()) / spec.experts;
    const Tensor logits = upload(rank, values, {tokens, spec.experts});
    Tensor probability = rank.backend->allocate(logits.shape(), DType::f64);
    Tensor log_sum_exp = rank.backend->allocate({tokens}, DType::f64);
    Routing routing{rank.backend->allocate({tokens, spec.top_k}, DType::int32),
                    rank.backend->allocate({tokens, spec.top_k}, DType::f64)};
    rank.backend->row_softmax(*rank.compute,
                              {.logits = logits, .probability = probability, .log_sum_exp = log_sum_exp});
    rank.backend->top_k(*rank.compute,
                        {.scores = probability, .index = routing.expert, .value = routing.weight});
    RouterTotals totals = sum_router(rank.context, spec, seq_len, {probability, log_sum_exp, {}}, routing);
    rank.drain();
    return totals;
}

BalanceTerms terms_of(const ModelSpec& spec, const RouterTotals& totals) {
    const RouterTotals* const layers[] = {&totals};
    GlobalBalance global{static_cast<double>(std::max<i64>(totals.tokens, 1)), {}, {}, {}};
    if (spec.balance.scope == BalanceScope::global) {
        global.counts = totals.balance_counts;  // the micro-batch is the batch
        global.weight = totals.weight_sum;
        global.load = totals.load_sum;
    }
    return balance_terms(spec, layers, global);
}

const std::vector<double> kLogits{.11, .2, .1, .3, .3, .4, .11, .1, .11, .1, .6, .5, .1, .11, .7, .8};

// Measured with the losses of Megatron-LM, DeepSpeed and Tutel, and Hugging Face's form, on the same logits.
TEST(Balance, ReproducesOtherProgramsValues) {
    const std::pair<BalanceConvention, double> wanted[] = {{BalanceConvention::megatron, 1.033420},
                                                           {BalanceConvention::gshard, 1.066840},
                                                           {BalanceConvention::hf, 2.066840},
                                                           {BalanceConvention::switch_transformer, 1.066840}};
    for (const auto& [convention, value] : wanted) {
        for (const BalanceScope scope : {BalanceScope::micro, BalanceScope::global}) {
            const ModelSpec spec = spec_with(convention, scope);
            const RouterTotals totals = totals_of(spec, kLogits, 4);
            EXPECT_EQ(totals.host_counts, (std::vector<i64>{1, 2, 2, 3}));
            const BalanceTerms terms = terms_of(spec, totals);
            EXPECT_NEAR(terms.aux, value, 5e-7) << name_of(convention);
            EXPECT_NEAR(terms.z, 2.898035, 5e-7);
        }
    }
}

/// Four sequences of one token: each is its own object, so f is 1 or 0.
TEST(Balance, MeasuresSequencesEachForItself) {
    const ModelSpec spec = spec_with(BalanceConvention::gshard, BalanceScope::sequence);
    const RouterTotals totals = totals_of(spec, kLogits, 1);
    double wanted = 0;  // mean over tokens of E * p of the first choice
    for (std::size_t t = 0; t < 4; ++t) {
        double largest = 0, sum = 0;
        for (std::size_t e = 0; e < 4; ++e) {
            largest = std::max(largest, std::exp(kLogits[4 * t + e]));
            sum += std::exp(kLogits[4 * t + e]);
        }
        wanted += largest / sum;
    }
    EXPECT_NEAR(terms_of(spec, totals).aux, wanted, 1e-12);
}

/// Every expert as often and as probable as any other, in two layers.
TEST(Balance, HasTheValueThatIsPrintedAtPerfectBalance) {
    for (const BalanceConvention convention : kConventions) {
        for (const BalanceScope scope : kScopes) {
            ModelSpec spec = spec_with(convention, scope, 4, 2);
            spec.balance.importance = 1;
            RouterTotals totals;
            totals.tokens = totals.rows_per_object = 8;
            totals.choices = 16;
            totals.host_counts.assign(4, 4);
            const bool all = convention == BalanceConvention::megatron || convention == BalanceConvention::hf;
            totals.balance_counts.assign(4, all ? 4 : 2);
            totals.probability_sum.assign(4, 2.0);
            totals.weight_sum.assign(4, 2.0);
            totals.load_sum.assign(4, 0.0);
            totals.z_sum.assign(1, 0.0);
            const RouterTotals* const layers[] = {&totals, &totals};
            const std::vector<i64> counts(8, totals.balance_counts[0]);
            const std::vector<double> weights(8, 2.0);
            const BalanceTerms terms = balance_terms(spec, layers, {8, counts, weights, {}});
            EXPECT_NEAR(terms.aux, perfect_balance(spec), 1e-12) << name_of(convention);
            EXPECT_EQ(terms.importance, 0);
        }
    }
    EXPECT_EQ(describe_balance(spec_with(BalanceConvention::hf, BalanceScope::micro, 4, 3)),
              "convention hf, 2 at perfect balance");
    EXPECT_EQ(describe_balance(spec_with(BalanceConvention::switch_transformer, BalanceScope::micro, 4, 3)),
              "convention switch, 3 at perfect balance (3 layers)");
}

/// Two layers, two objects of three tokens, arbitrary sums.
struct Sums {
    std::vector<RouterTotals> layers{2};
    std::vector<i64> counts;
    std::vector<double> weights, loads;
    double tokens = 15;  // of a batch that this micro-batch is a part of

    Sums(const ModelSpec& spec, i64 objects) {
        for (std::size_t layer = 0; layer < 2; ++layer) {
            RouterTotals& totals = layers[layer];
            totals.tokens = 6;
            totals.choices = 12;
            totals.rows_per_object = 6 / objects;
            const i64 size = objects * spec.experts;
            const std::string name = "sums" + std::to_string(layer);
            for (const i32 count : whole_values(name, size, 5)) totals.host_counts.push_back(count);
            totals.balance_counts = totals.host_counts;
            totals.probability_sum = normal_values(name + "p", size);
            totals.weight_sum = normal_values(name + "w", size);
            totals.load_sum = normal_values(name + "l", size);
            totals.z_sum.assign(static_cast<std::size_t>(objects), 1.0);
        }
        for (const i32 count : whole_values("all", 2 * spec.experts, 9)) counts.push_back(count);
        weights = normal_values("all w", 2 * spec.experts);
        loads = normal_values("all l", 2 * spec.experts);
    }
    [[nodiscard]] std::vector<const RouterTotals*> pointers() const { return {&layers[0], &layers[1]}; }
    [[nodiscard]] GlobalBalance global() const { return {tokens, counts, weights, loads}; }
    [[nodiscard]] double objective(const ModelSpec& spec) const {
        const BalanceTerms terms = balance_terms(spec, pointers(), global());
        return spec.balance.aux * terms.aux + spec.balance.importance * terms.importance +
               spec.balance.load * terms.load;
    }
};

/// Derivative of the objective when each of a token's values moves the sums that it is part of. At scope
/// global a weight moves the sum of the whole batch, and with it the share of every micro-batch: this one's
/// share times N / its tokens.
double slope(const ModelSpec& spec, Sums& sums, double& value, double share) {
    const double h = 1e-5, original = value;
    value = original + h;
    const double above = sums.objective(spec);
    value = original - h;
    const double below = sums.objective(spec);
    value = original;
    return (above - below) / (2 * h) * share;
}

void check_factors(const ModelSpec& spec, Sums sums) {
    const bool global = spec.balance.scope == BalanceScope::global;
    const auto experts = static_cast<std::size_t>(spec.experts);
    BalanceFactors factors;
    balance_factors(spec, sums.pointers(), sums.global(), factors);
    const std::size_t rows = static_cast<std::size_t>(factors.rows);
    ASSERT_EQ(factors.probability.size(), 2 * rows * experts);
    ASSERT_EQ(factors.weight.size(), 2 * rows * experts);
    ASSERT_EQ(factors.load.size(), 2 * rows * experts);
    const double share = global ? sums.tokens / 6 : 1;
    for (std::size_t layer = 0; layer < 2; ++layer) {
        for (std::size_t i = 0; i < rows * experts; ++i) {
            const std::size_t at = layer * rows * experts + i;
            double& weight = global ? sums.weights[at] : sums.layers[layer].weight_sum[i];
            double& load = global ? sums.loads[at] : sums.layers[layer].load_sum[i];
            const auto close = [&](double got, double want) {
                EXPECT_NEAR(got, want, 1e-6 * (1 + std::abs(want))) << "layer " << layer << " [" << i << "]";
            };
            close(factors.probability[at], slope(spec, sums, sums.layers[layer].probability_sum[i], 1));
            close(factors.weight[at], slope(spec, sums, weight, share));
            close(factors.load[at], slope(spec, sums, load, share));
        }
    }
}

TEST(Balance, FactorsAreTheDerivatives) {
    for (const BalanceConvention convention : kConventions) {
        for (const BalanceScope scope : kScopes) {
            SCOPED_TRACE(testing::Message() << name_of(convention) << " " << static_cast<int>(scope));
            ModelSpec spec = spec_with(convention, scope, 5, 2);
            spec.balance.aux = 0.7;
            spec.balance.importance = 0.3;
            spec.balance.load = 0.2;
            check_factors(spec, Sums(spec, scope == BalanceScope::sequence ? 2 : 1));
        }
    }
}

TEST(Balance, WithoutCoefficientsOrTokensThereIsNothing) {
    ModelSpec spec = spec_with(BalanceConvention::megatron, BalanceScope::micro);
    spec.balance.importance = 1;
    const RouterTotals empty = totals_of(spec, {}, 4);
    EXPECT_EQ(empty.host_counts.size(), 0U);
    EXPECT_EQ(terms_of(spec, empty).aux, 0);
    EXPECT_EQ(terms_of(spec, empty).importance, 0);
    RouterTotals idle = totals_of(spec, kLogits, 4);
    std::fill(idle.weight_sum.begin(), idle.weight_sum.end(), 0.0);
    EXPECT_EQ(terms_of(spec, idle).importance, 0) << "no weight at all is even, not NaN";
    spec.balance = {.aux = 0, .z = 0};
    const RouterTotals* const layers[] = {&idle};
    BalanceFactors factors;
    balance_factors(spec, layers, {4, {}, {}, {}}, factors);
    EXPECT_TRUE(factors.probability.empty() && factors.weight.empty() && factors.load.empty());
}

/// A router without probabilities: its choices are counted, the losses that need them are 0.
TEST(Balance, BearsARouterWithoutProbabilities) {
    const ModelSpec spec = spec_with(BalanceConvention::switch_transformer, BalanceScope::micro);
    SelfCommunicator world;
    RankSetup rank(world, 1, 4);
    const Routing routing{upload(rank, std::vector<i32>{0, 3, -1, 3}, {2, 2}),
                          upload(rank, std::vector<double>{.5, .5, 1, 1}, {2, 2})};
    const RouterTotals totals = sum_router(rank.context, spec, 2, {}, routing);
    rank.drain();
    EXPECT_EQ(totals.host_counts, (std::vector<i64>{1, 0, 0, 2}));
    EXPECT_EQ(totals.weight_sum, (std::vector<double>{.5, 0, 0, 1.5}));
    EXPECT_EQ(totals.balance_counts, (std::vector<i64>{0, 0, 0, 0}));
    EXPECT_EQ(totals.chosen(), 3);
    EXPECT_EQ(terms_of(spec, totals).aux, 0);
}

}  // namespace
}  // namespace moesaic
