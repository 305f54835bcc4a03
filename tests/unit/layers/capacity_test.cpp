// Capacity and drops: other programs' numbers, an oracle that is slow and obvious, and properties on ranks.
#include "layers/capacity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>
#include <tuple>

#include "comm/exchange/exchange.h"
#include "comm/self_communicator.h"
#include "tests/support/layer_inputs.h"

namespace moesaic {
namespace {

using KeptRow = std::tuple<i64, i64, i64>;  // token, expert, place among what the expert keeps

TEST(Capacity, RowsByEveryProgramsRule) {
    struct Case {
        CapacityRounding rounding;
        i64 uneven, seven, thirteen;
    };
    const Case cases[] = {{CapacityRounding::ceil, 7, 4, 4},       {CapacityRounding::tutel, 6, 4, 4},
                          {CapacityRounding::floor, 6, 3, 3},      {CapacityRounding::fastmoe, 6, 3, 3},
                          {CapacityRounding::colossalai, 6, 4, 4}, {CapacityRounding::olmo, 8, 7, 8}};
    for (const Case& one : cases) {
        SCOPED_TRACE(static_cast<int>(one.rounding));
        CapacitySpec spec{.factor = 1.25, .rounding = one.rounding};
        EXPECT_EQ(rows_of_capacity(spec, 10, 2, 4), one.uneven);
        spec.factor = 1;
        EXPECT_EQ(rows_of_capacity(spec, 7, 2, 4), one.seven);  // olmo: 8, but there are 7 tokens
        EXPECT_EQ(rows_of_capacity(spec, 13, 1, 4), one.thirteen);
    }
    EXPECT_EQ(rows_of_capacity({.factor = 0.01}, 5, 1, 64), 1) << "at least one";
    EXPECT_EQ(rows_of_capacity({.factor = 100}, 5, 1, 64), 5) << "at most all";
    EXPECT_EQ(rows_of_capacity({.factor = 1}, 0, 2, 4), 1);
}

TEST(Capacity, IsDescribedInWords) {
    ModelSpec spec;
    spec.seq_len = 256;
    EXPECT_EQ(describe_capacity(spec), "dropless");
    spec.capacity = CapacitySpec{};
    EXPECT_EQ(describe_capacity(spec),
              "80 rows an expert in each sequence of 256 tokens (factor 1.25, ceil), dropped by probability");
    spec.capacity->per = CapacityScope::micro;
    spec.capacity->policy = DropPolicy::position;
    spec.capacity->renormalize = spec.capacity->pad = true;
    EXPECT_EQ(
        describe_capacity(spec),
        "320 rows an expert in each micro-batch of 1024 tokens (factor 1.25, ceil), dropped by position, "
        "weights renormalised, padded");
}

/// One rank's routing of logits [T,E]: softmax before top-k, or over the chosen.
struct Routed {
    Routed(const ModelSpec& model, const std::vector<double>& logits, bool normalize, i64 seq_len)
        : spec(model), world(), rank(world, 1, static_cast<int>(spec.experts)) {
        const i64 tokens = static_cast<i64>(logits.size()) / spec.experts;
        const Tensor given = upload(rank, logits, {tokens, spec.experts});
        probability = rank.backend->allocate(given.shape(), DType::f64);
        Tensor log_sum_exp = rank.backend->allocate({tokens}, DType::f64);
        routing = {rank.backend->allocate({tokens, spec.top_k}, DType::int32),
                   rank.backend->allocate({tokens, spec.top_k}, DType::f64)};
        rank.backend->row_softmax(*rank.compute,
                                  {.logits = given, .probability = probability, .log_sum_exp = log_sum_exp});
        rank.backend->top_k(*rank.compute,
                            {.scores = probability, .index = routing.expert, .value = routing.weight});
        for (i64 t = 0; t < tokens && normalize; ++t) {
            double* weight = routing.weight.as<double>() + t * spec.top_k;
            const double sum = std::accumulate(weight, weight + spec.top_k, 0.0);
            for (i64 k = 0; k < spec.top_k; ++k) weight[k] /= sum;
        }
        kept = keep_within_capacity(rank.context, spec, seq_len, probability, routing);
    }

    [[nodiscard]] std::vector<KeptRow> kept_rows() const {
        std::vector<KeptRow> rows;
        std::vector<i64> used(static_cast<std::size_t>(spec.experts), 0);
        for (i64 choice = 0; choice < kept.expert.elements(); ++choice) {
            const i32 expert = kept.expert.as<i32>()[choice];
            if (expert < 0) continue;
            rows.emplace_back(choice / spec.top_k, expert, used[static_cast<std::size_t>(expert)]++);
        }
        std::sort(rows.begin(), rows.end());
        return rows;
    }
    [[nodiscard]] double kept_weight(i64 token) const {
        double sum = 0;
        for (i64 k = token * spec.top_k; k < (token + 1) * spec.top_k; ++k) {
            if (kept.expert.as<i32>()[k] >= 0) sum += kept.weight.as<double>()[k];
        }
        return sum;
    }

    ModelSpec spec;
    SelfCommunicator world;
    RankSetup rank;
    Tensor probability;
    Routing routing, kept;
};

ModelSpec spec_with(i64 experts, i64 top_k, CapacitySpec capacity) {
    ModelSpec spec;
    spec.experts = experts;
    spec.top_k = top_k;
    spec.capacity = capacity;
    return spec;
}

const std::vector<double> kLogits{.11, .2, .1, .3, .3, .4, .11, .1, .11, .1, .6, .5, .1, .11, .7, .8};

// DeepSpeed, TestTopkGate: logits of four tokens, capacity factor 1.
TEST(Capacity, KeepsWhatDeepSpeedKeeps) {
    const CapacitySpec by_probability{.factor = 1}, by_position{.factor = 1, .policy = DropPolicy::position};
    EXPECT_EQ(
        Routed(spec_with(4, 2, by_probability), kLogits, true, 4).kept_rows(),
        (std::vector<KeptRow>{{0, 1, 0}, {1, 0, 0}, {1, 1, 1}, {2, 2, 0}, {2, 3, 0}, {3, 2, 1}, {3, 3, 1}}));
    EXPECT_EQ(
        Routed(spec_with(4, 2, by_position), kLogits, true, 4).kept_rows(),
        (std::vector<KeptRow>{{0, 1, 0}, {0, 3, 0}, {1, 0, 0}, {1, 1, 1}, {2, 2, 0}, {2, 3, 1}, {3, 2, 1}}));
}

// The same test's second vector: three of six experts, two rows each.
TEST(Capacity, KeepsWhatDeepSpeedKeepsOfThreeChoices) {
    const std::vector<double> logits{.5858, .4801, .6269, .5397, .9722, .7034, .5445, .6332,
                                     .4519, .6308, .0519, .6450, .4874, .8110, .7467, .8474,
                                     .0277, .3068, .8570, .6714, .5310, .3274, .4836, .9892};
    EXPECT_EQ(Routed(spec_with(6, 3, {.factor = 1}), logits, true, 4).kept_rows(),
              (std::vector<KeptRow>{{0, 2, 0},
                                    {0, 4, 0},
                                    {1, 1, 0},
                                    {1, 3, 0},
                                    {1, 5, 0},
                                    {2, 1, 1},
                                    {2, 2, 1},
                                    {2, 3, 1},
                                    {3, 0, 0},
                                    {3, 5, 1}}));
    EXPECT_EQ(
        Routed(spec_with(6, 3, {.factor = 1, .policy = DropPolicy::position}), logits, true, 4).kept_rows(),
        (std::vector<KeptRow>{{0, 2, 0},
                              {0, 4, 0},
                              {0, 5, 0},
                              {1, 1, 0},
                              {1, 3, 0},
                              {1, 5, 1},
                              {2, 1, 1},
                              {2, 2, 1},
                              {2, 3, 1},
                              {3, 0, 0}}));
}

// The same test's case without a drop: counts 4, 2, 2, 0 of a capacity of 4.
TEST(Capacity, KeepsAllWhereAllFits) {
    const std::vector<double> logits{.95, .85, .9, .8, .7, .65, .75, .6, .5, .55, .45, .4, .35, .3, .25, .2};
    const Routed routed(spec_with(4, 2, {.factor = 2}), logits, true, 4);
    EXPECT_EQ(routed.kept_rows(),
              (std::vector<KeptRow>{
                  {0, 0, 0}, {0, 2, 0}, {1, 0, 1}, {1, 2, 1}, {2, 0, 2}, {2, 1, 0}, {3, 0, 3}, {3, 1, 1}}));
    EXPECT_EQ(rows_of_capacity(*routed.spec.capacity, 4, 2, 4), 4);
}

// One choice is lost (token 0, expert 3): Megatron-LM leaves the weights, DeepSpeed makes them sum to 1.
TEST(Capacity, WeighsWhatIsKeptAsItIsOrAnew) {
    const Routed as_is(spec_with(4, 2, {.factor = 1}), kLogits, true, 4);
    EXPECT_NEAR(as_is.kept_weight(0), 1 - 0.524979, 5e-7);
    for (const i64 token : {1, 2, 3}) EXPECT_NEAR(as_is.kept_weight(token), 1, 1e-12);
    const Routed anew(spec_with(4, 2, {.factor = 1, .renormalize = true}), kLogits, true, 4);
    for (const i64 token : {0, 1, 2, 3}) EXPECT_NEAR(anew.kept_weight(token), 1, 1e-12);
    const Routed unscaled(spec_with(4, 2, {.factor = 1, .renormalize = true}), kLogits, false, 4);
    EXPECT_NEAR(unscaled.kept_weight(0), .281648 + .254846, 1e-6) << "what all choices weighed";
}

/// By the definition: expert by expert, of all choices in an object, the best `capacity`.
std::vector<i32> kept_by_definition(const ModelSpec& spec, i64 object_tokens, const std::vector<i32>& index,
                                    const std::vector<double>& probability) {
    std::vector<i32> kept = index;
    const i64 tokens = static_cast<i64>(index.size()) / spec.top_k;
    const i64 room = rows_of_capacity(*spec.capacity, object_tokens, spec.top_k, spec.experts);
    const auto score = [&](i64 choice, i64 expert) {
        return probability[static_cast<std::size_t>(choice / spec.top_k * spec.experts + expert)];
    };
    for (i64 first = 0; first < tokens; first += object_tokens) {
        for (i64 expert = 0; expert < spec.experts; ++expert) {
            std::vector<i64> choices;
            for (i64 c = first * spec.top_k; c < (first + object_tokens) * spec.top_k; ++c) {
                if (index[static_cast<std::size_t>(c)] == expert) choices.push_back(c);
            }
            if (spec.capacity->policy == DropPolicy::probability) {
                std::stable_sort(choices.begin(), choices.end(),
                                 [&](i64 a, i64 b) { return score(a, expert) > score(b, expert); });
            }
            for (std::size_t i = static_cast<std::size_t>(room); i < choices.size(); ++i) {
                kept[static_cast<std::size_t>(choices[i])] = -1;
            }
        }
    }
    return kept;
}

/// Probabilities in quarters, so that many tie.
TEST(Capacity, EqualsTheDefinition) {
    const i64 seq_len = 12, tokens = 60;
    for (const DropPolicy policy : {DropPolicy::probability, DropPolicy::position}) {
        for (const CapacityScope per : {CapacityScope::sequence, CapacityScope::micro}) {
            for (const double factor : {0.1, 0.5, 1.0, 3.0}) {
                ModelSpec spec = spec_with(5, 3, {.factor = factor, .policy = policy, .per = per});
                std::vector<double> logits = normal_values("logits", tokens * 5);
                for (double& logit : logits) logit = std::round(logit);
                const Routed routed(spec, logits, false, seq_len);
                const i32* const index = routed.routing.expert.as<i32>();
                const i32* const kept = routed.kept.expert.as<i32>();
                const double* const p = routed.probability.as<double>();
                const std::vector<i32> want =
                    kept_by_definition(spec, per == CapacityScope::sequence ? seq_len : tokens,
                                       {index, index + tokens * 3}, {p, p + tokens * 5});
                EXPECT_EQ(std::vector<i32>(kept, kept + tokens * 3), want);
                EXPECT_EQ(std::count(want.begin(), want.end(), -1) == 0, factor == 3.0);
            }
        }
    }
}

/// Tokens of a rank: some have none, one has one.
constexpr i64 kTokens[] = {8, 0, 1, 8, 5, 8, 0, 3};
constexpr i64 kWidth = 3;

struct Moved {
    std::vector<double> y, d_x, weight;  // weight [T]: of what was kept
    i64 dropped = 0;
};

/// What experts make of a round's rows that return their input.
ExpertRows identity(RankSetup& rank, Exchange& exchange, const DispatchChunk& round,
                    const ArrivedRows& arrived) {
    ExpertRows results = exchange.result_rows(rank.context);
    gather_rows(rank.context, arrived.by_expert(round.received()),
                results.rows.slice_rows(0, round.received()));
    return results;
}

/// Experts that return their input, weights of 1/k: what dispatch and combine make of rows after drops.
Moved through_identity_experts(RankSetup& rank, const ModelSpec& spec, i64 micro_batch) {
    const i64 tokens = kTokens[micro_batch];
    const std::string name = std::to_string(micro_batch);
    const Tensor x = upload(rank, normal_values("x" + name, tokens * kWidth), {tokens, kWidth});
    const Tensor p = upload(rank, normal_values("p" + name, tokens * spec.experts), {tokens, spec.experts});
    Routing routing{rank.backend->allocate({tokens, spec.top_k}, DType::int32),
                    rank.backend->allocate({tokens, spec.top_k}, DType::f64)};
    rank.backend->top_k(*rank.compute, {.scores = p, .index = routing.expert, .value = routing.weight});
    for (i64 i = 0; i < routing.weight.elements(); ++i) {
        routing.weight.as<double>()[i] = 1.0 / static_cast<double>(spec.top_k);
    }
    const Routing kept = keep_within_capacity(rank.context, spec, std::max<i64>(tokens, 1), p, routing);
    constexpr i64 kBudget = 7;
    const auto exchange = make_exchange(
        rank.mesh,
        {.tokens = 16, .choices = spec.top_k, .width = kWidth, .capacity_rows = kBudget, .dtype = DType::f64},
        {.name = "flat"});
    const DispatchPlan plan = exchange->plan(rank.context, kept, 0);
    ExchangeSaved saved;
    for (std::size_t round = 0; round < plan.chunks.size(); ++round) {
        EXPECT_LE(plan.chunks[round].received(), kBudget);
        const ArrivedRows rows = exchange->finish_arrival(
            rank.context, plan, round, exchange->start_dispatch(rank.context, plan, round, x));
        exchange->combine(rank.context, plan, round, identity(rank, *exchange, plan.chunks[round], rows),
                          kept.weight, saved);
    }
    const Tensor y = exchange->finish_combine(rank.context, plan, kept.weight, saved);
    ExchangeBackward backward = exchange->begin_backward(rank.context, plan, x, kept.weight, saved);
    for (std::size_t round = 0; round < plan.chunks.size(); ++round) {
        const ArrivedRows rows = exchange->finish_arrival(
            rank.context, plan, round, exchange->start_combine_backward(rank.context, plan, round, backward));
        exchange->dispatch_backward(rank.context, plan, round,
                                    identity(rank, *exchange, plan.chunks[round], rows), backward);
    }
    const Tensor d_x = exchange->finish_backward(rank.context, plan, std::move(backward)).dx;
    Moved moved{rank.read<double>(y), rank.read<double>(d_x), {}, plan.dropped};
    for (i64 t = 0; t < tokens; ++t) {
        double sum = 0;
        for (i64 k = t * spec.top_k; k < (t + 1) * spec.top_k; ++k) {
            if (kept.expert.as<i32>()[k] >= 0) sum += kept.weight.as<double>()[k];
        }
        moved.weight.push_back(sum);
    }
    return moved;
}

// The properties of Megatron-LM's suite: the output is the input times the sum of the kept weights, and so is
// the gradient.
TEST(Capacity, IdentityExpertsReturnTheInputTimesTheKeptWeights) {
    for (const bool renormalize : {false, true}) {
        for (const double factor : {0.4, 100.0}) {
            const ModelSpec spec = spec_with(8, 2, {.factor = factor, .renormalize = renormalize});
            for (const int ranks : {1, 2, 4, 8}) {
                SCOPED_TRACE(testing::Message() << ranks << " ranks, factor " << factor);
                std::mutex mutex;
                i64 dropped = 0, lost = 0;
                run_ranks(
                    ranks,
                    [&](Communicator& world) {
                        RankSetup rank(world, ranks, 8);
                        for (i64 i = world.rank(); i < 8; i += ranks) {
                            const Moved moved = through_identity_experts(rank, spec, i);
                            const std::vector<double> x =
                                normal_values("x" + std::to_string(i), kTokens[i] * kWidth);
                            const std::lock_guard lock(mutex);
                            dropped += moved.dropped;
                            for (std::size_t j = 0; j < x.size(); ++j) {
                                const double weight = moved.weight[j / kWidth];
                                EXPECT_NEAR(moved.y[j], x[j] * weight, 1e-14);
                                EXPECT_NEAR(moved.d_x[j], x[j] * weight, 1e-14);
                                lost += weight == 0 ? 1 : 0;
                                if (renormalize && weight != 0) {
                                    EXPECT_NEAR(weight, 1, 1e-14);
                                }
                            }
                        }
                    },
                    60);
                EXPECT_EQ(dropped > 0, factor < 1);
                EXPECT_EQ(lost > 0, factor < 1) << "some token loses all its choices and gives 0";
            }
        }
    }
}

}  // namespace
}  // namespace moesaic
