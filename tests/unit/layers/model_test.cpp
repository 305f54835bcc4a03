// The whole model on several layouts: losses of the same bits, gradients that agree.
#include "layers/model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/support/model_step.h"

namespace moesaic {
namespace {

ModelStep usual_step() {
    ModelStep step = tiny_model_step(9);  // the last micro-batch is short
    step.targets[40] = -1;
    return step;
}

void expect_close(const NamedValues& a, const NamedValues& b, double tolerance) {
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, values] : a) {
        const std::vector<double>& other = b.at(name);
        ASSERT_EQ(values.size(), other.size()) << name;
        double difference = 0, norm = 0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            difference += (values[i] - other[i]) * (values[i] - other[i]);
            norm += values[i] * values[i];
        }
        EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(norm) + 1e-300) << name;
    }
}

bool is_expert(const std::string& name) {
    return name.find(".experts.") != std::string::npos;
}

TEST(Model, HasTheSameLossesOnEveryLayout) {
    for (const BalanceScope scope : {BalanceScope::sequence, BalanceScope::micro, BalanceScope::global}) {
        ModelStep step = usual_step();
        step.spec.balance.scope = scope;
        const ModelStepResult one = run_model_step(step);
        for (const auto& [ranks, expert_parallel] :
             {std::pair{2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}, {8, 4}}) {
            SCOPED_TRACE(
                fmt::format("{} ranks, ep {}, scope {}", ranks, expert_parallel, static_cast<int>(scope)));
            step.ranks = ranks;
            step.expert_parallel = expert_parallel;
            const ModelStepResult other = run_model_step(step);
            EXPECT_EQ(one.token_loss, other.token_loss);
            EXPECT_EQ(one.logits, other.logits);
            EXPECT_EQ(one.counts, other.counts);
            EXPECT_NEAR(one.balance.aux, other.balance.aux, 1e-13);
            EXPECT_NEAR(one.balance.z, other.balance.z, 1e-13);
            expect_close(one.gradients, other.gradients, 1e-12);
            if (ranks != expert_parallel) continue;
            for (const auto& [name, gradient] : one.gradients) {
                if (!is_expert(name)) continue;
                EXPECT_EQ(gradient, other.gradients.at(name)) << name;
            }
        }
    }
}

TEST(Model, HasTheSameBitsForEveryReceiveBudgetAndStreamOrder) {
    ModelStep step = usual_step();
    step.ranks = 2;
    step.expert_parallel = 2;
    const ModelStepResult one = run_model_step(step);
    for (const double budget : {0.2, 2.0}) {
        for (const StreamMode mode : {StreamMode::inline_execution, StreamMode::deferred_shuffled}) {
            step.spec.receive_budget = budget;
            step.mode = mode;
            const ModelStepResult other = run_model_step(step);
            EXPECT_EQ(one.token_loss, other.token_loss);
            EXPECT_EQ(one.gradients, other.gradients);
        }
    }
}

TEST(Model, BalanceLossIsOneAtLeast) {
    ModelStep step = usual_step();
    step.spec.balance.scope = BalanceScope::global;
    const ModelStepResult result = run_model_step(step);
    EXPECT_GT(result.balance.aux, 0.9 * step.spec.expert_layers());
    EXPECT_LT(result.balance.aux, 2.0 * step.spec.expert_layers());
    EXPECT_EQ(std::accumulate(result.counts.begin(), result.counts.end(), i64{0}),
              step.spec.expert_layers() * step.spec.top_k * static_cast<i64>(step.tokens.size()));
}

TEST(Model, CountsATokenAsWrongWhereAnotherIsLikelier) {
    const ModelStep step = usual_step();
    const ModelStepResult result = run_model_step(step);
    i64 right = 0;
    for (std::size_t t = 0; t < step.tokens.size(); ++t) {
        const auto row = result.logits.begin() + static_cast<std::ptrdiff_t>(t) * step.spec.vocabulary;
        const auto likeliest = std::max_element(row, row + step.spec.vocabulary) - row;
        const bool wrong = step.targets[t] >= 0 && step.targets[t] != likeliest;
        EXPECT_EQ(result.token_wrong[t], wrong ? 1 : 0) << t;
        right += step.targets[t] == likeliest ? 1 : 0;
    }
    EXPECT_GT(right, 0);
}

TEST(Model, MarginsAreThoseOfTheLogitsInBothPhases) {
    const ModelStep step = usual_step();
    const ModelStepResult result = run_model_step(step);
    i64 masked = 0;
    for (std::size_t t = 0; t < step.tokens.size(); ++t) {
        const auto row = result.logits.begin() + static_cast<std::ptrdiff_t>(t) * step.spec.vocabulary;
        double other = -std::numeric_limits<double>::infinity();
        for (i32 v = 0; v < step.spec.vocabulary; ++v) {
            if (v != step.targets[t]) other = std::max(other, row[v]);
        }
        const double margin =
            step.targets[t] < 0 ? std::numeric_limits<double>::infinity() : row[step.targets[t]] - other;
        EXPECT_EQ(result.token_margin[t], margin) << t;
        EXPECT_EQ(result.train_margin[t], margin) << t << ": a loss of training is one of evaluation";
        masked += step.targets[t] < 0 ? 1 : 0;
    }
    EXPECT_GT(masked, 0);
}

TEST(Model, PlantedLocalBalanceLossShows) {
    ModelStep step = usual_step();
    step.ranks = 2;
    step.expert_parallel = 2;
    const ModelStepResult right = run_model_step(step);
    step.defects.local_balance_loss = true;
    const ModelStepResult wrong = run_model_step(step);
    EXPECT_EQ(right.token_loss, wrong.token_loss);
    const std::string gate = "model.layers.1.mlp.gate.weight";
    EXPECT_NE(right.gradients.at(gate), wrong.gradients.at(gate));
}

/// Tokens behind a sequence's last target are padding: whatever they are, no loss and no gradient changes by
/// a bit, and the mean is over the targets that are left. (Balance losses do count them: they are tokens.)
TEST(Model, MaskedPaddingCountsNowhere) {
    ModelStep step = usual_step();
    step.spec.balance.aux = step.spec.balance.z = 0;
    for (std::size_t first = 0; first < step.tokens.size(); first += 6) {
        const std::size_t kept = first % 18 == 0   ? 6
                                 : first % 18 == 6 ? 4
                                                   : 0;  // one sequence is all padding
        std::fill_n(step.targets.begin() + static_cast<std::ptrdiff_t>(first + kept), 6 - kept, -1);
    }
    const std::vector<i32> padded_otherwise = [&] {
        std::vector<i32> tokens = step.tokens;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            const bool behind = i % 18 >= 12 || (i % 18 >= 10 && i % 18 < 12);
            if (behind) tokens[i] = (tokens[i] + 7) % 19;
        }
        return tokens;
    }();
    for (const auto& [ranks, expert_parallel] : {std::pair{1, 1}, {2, 2}, {4, 2}}) {
        SCOPED_TRACE(fmt::format("{} ranks, ep {}", ranks, expert_parallel));
        step.ranks = ranks;
        step.expert_parallel = expert_parallel;
        const ModelStepResult one = run_model_step(step);
        ModelStep other_padding = step;
        other_padding.tokens = padded_otherwise;
        const ModelStepResult other = run_model_step(other_padding);
        EXPECT_NE(one.counts, other.counts) << "the padding was routed, and not elsewhere";
        EXPECT_EQ(one.token_loss, other.token_loss);
        EXPECT_EQ(one.loss, other.loss);
        for (const auto& [name, gradient] : one.gradients)
            EXPECT_EQ(gradient, other.gradients.at(name)) << name;
        EXPECT_EQ(std::ranges::count_if(one.token_loss, [](double loss) { return loss != 0; }),
                  std::ranges::count_if(step.targets, [](i32 target) { return target >= 0; }));
    }
}

}  // namespace
}  // namespace moesaic
