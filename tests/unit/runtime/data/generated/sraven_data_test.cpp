// SRAVEN instances against the rules they claim to follow, found again by trying all of them.
#include "runtime/data/generated/sraven_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "runtime/data/generated/draws.h"
#include "tests/support/instance.h"
#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using testing::HasSubstr;
using testing_support::user_error_of;

/// Whether the three rows follow the rule: what the dossier says of each, not what the generator does.
bool follows(const FeatureGrid& grid, int rule, int values) {
    const auto same = [&](int a, int b) { return (a - b) % values == 0; };
    std::set<std::set<int>> sets;
    for (const std::array<int, 3>& row : grid) {
        const auto [a, b, c] = row;
        const int step[] = {0, 1, 2, -1, -2};
        if (rule <= 4 && !(same(b, a + step[rule]) && same(c, b + step[rule]))) return false;
        if (rule == 5 && !same(c, a + b)) return false;
        if (rule == 6 && !same(c, a - b)) return false;
        sets.insert({a, b, c});
    }
    return rule != 7 || (sets.size() == 1 && sets.begin()->size() == 3);
}

TEST(Sraven, EveryRuleMakesGridsThatFollowIt) {
    const Philox stream(1, "test");
    for (const int values : {3, 8}) {
        for (int rule = 0; rule < kRavenRules; ++rule) {
            std::set<FeatureGrid> different;
            std::set<int> seen;
            for (i64 i = 0; i < 200; ++i) {
                InstanceDraws draws(stream, i);
                const FeatureGrid grid = draw_feature(rule, values, draws);
                ASSERT_TRUE(follows(grid, rule, values)) << "rule " << rule;
                different.insert(grid);
                for (const auto& row : grid) seen.insert(row.begin(), row.end());
            }
            EXPECT_EQ(std::ssize(seen), values) << "rule " << rule << ": every value occurs, and no other";
            EXPECT_EQ(*seen.begin(), 0);
            EXPECT_GT(different.size(), rule == 7 && values == 3 ? 100u : 20u) << "rule " << rule;
        }
    }
}

TEST(Sraven, CombinationsAreThoseOfTheDossier) {
    struct Count {
        int features;
        std::size_t all, held_out;
    };
    for (const Count& one :
         {Count{2, 36, 9}, {3, 120, 30}, {4, 330, 82}, {5, 792, 198}, {6, 1716, 429}, {8, 6435, 1608}}) {
        const RuleCombinations split = split_combinations(kRavenRules, one.features, 0.25, 1);
        EXPECT_EQ(split.held_out.size(), one.held_out);
        EXPECT_EQ(split.trained.size() + split.held_out.size(), one.all);
        std::set<std::vector<int>> trained(split.trained.begin(), split.trained.end());
        EXPECT_EQ(trained.size(), split.trained.size());
        for (const std::vector<int>& held_out : split.held_out) {
            EXPECT_TRUE(std::is_sorted(held_out.begin(), held_out.end()));
            EXPECT_FALSE(trained.contains(held_out)) << "no order of a held-out combination is trained on";
        }
    }
    EXPECT_NE(split_combinations(8, 2, 0.25, 1).held_out, split_combinations(8, 2, 0.25, 2).held_out);
    EXPECT_THAT(user_error_of([] { (void)split_combinations(8, 1, 0.25, 1); }),
                HasSubstr("occurs in no trained combination"));
    EXPECT_THAT(user_error_of([] { (void)split_combinations(3, 1, 0.1, 1); }), HasSubstr("is none"));
}

/// Combinations of two rules that some order of the features in each column makes an instance follow.
std::set<std::vector<int>> explanations(const Instance& one, int values) {
    std::set<std::vector<int>> found;
    for (int orders = 0; orders < 8; ++orders) {
        FeatureGrid grids[2];
        for (std::size_t panel = 0; panel < 9; ++panel) {
            const std::size_t row = panel / 3, column = panel % 3;
            const std::size_t swapped = (orders >> column) & 1;
            for (std::size_t i = 0; i < 2; ++i)
                grids[i ^ swapped][row][column] = panel < 8 ? one.tokens[2 * panel + i] : one.targets[16 + i];
        }
        for (int a = 0; a < kRavenRules; ++a)
            for (int b = a; b < kRavenRules; ++b)
                if (follows(grids[0], a, values) && follows(grids[1], b, values)) found.insert({a, b});
    }
    return found;
}

TEST(Sraven, InstancesFollowACombinationOfTheirOwnSplit) {
    SravenOptions options;
    options.features = 2;
    options.samples = 1000;
    options.test = 300;
    const SravenData data(options);
    const auto trained = data.combinations().trained, held_out = data.combinations().held_out;
    const auto expect_of = [&](bool heldout, i64 index, const std::vector<std::vector<int>>& list) {
        const Instance one = instance_of(data, heldout, index);
        for (std::size_t i = 0; i < 18; ++i) {
            EXPECT_EQ(one.tokens[i] == 8, i >= 16) << "blanks stand at the end";
            EXPECT_EQ(one.targets[i] >= 0, i >= 16) << "and have targets";
        }
        const auto found = explanations(one, 8);
        EXPECT_TRUE(
            std::any_of(list.begin(), list.end(), [&](const auto& rules) { return found.contains(rules); }))
            << (heldout ? "held-out " : "training ") << index;
        return found.size() == 1;
    };
    int unique = 0;
    for (i64 i = 0; i < 300; ++i) {
        unique += expect_of(false, i, trained) ? 1 : 0;
        expect_of(true, i, trained);
        unique += expect_of(true, 300 + i, held_out) ? 1 : 0;
    }
    EXPECT_GT(unique, 500) << "few instances are ambiguous: the split shows";
}

/// The mistake of the reference code: there the test instances are the first training batches.
TEST(Sraven, TestInstancesAreNoTrainingInstances) {
    SravenOptions options;
    options.features = 3;
    options.samples = 2000;
    options.test = 500;
    const SravenData data(options);
    std::set<std::vector<i32>> trained;
    for (i64 i = 0; i < 2000; ++i) trained.insert(instance_of(data, false, i).tokens);
    EXPECT_GT(trained.size(), 1990u);
    int shared = 0;
    for (i64 i = 0; i < 1000; ++i) shared += trained.contains(instance_of(data, true, i).tokens) ? 1 : 0;
    EXPECT_EQ(shared, 0);
    std::set<i64> epoch;
    for (i64 number = 0; number < 2000; ++number) epoch.insert(data.training_sequence(3, number));
    EXPECT_EQ(epoch.size(), 2000u);
    EXPECT_EQ(data.shape().seq_len, 27);
    EXPECT_EQ(data.shape().outputs, 8);
    EXPECT_EQ(data.shape().targets_at_end, 3);
}

/// Columns have orders of their own: else the place of a feature would tell its rule.
TEST(Sraven, FeaturesAreShuffledPerColumn) {
    SravenOptions options;
    options.features = 2;
    options.samples = 4000;
    const SravenData data(options);
    int first_row_tells = 0, looked_at = 0;
    for (i64 i = 0; i < 4000; ++i) {
        const Instance one = instance_of(data, false, i);
        // Rule 0 keeps a row's value; unshuffled, the first feature has the lower rule, so it would be
        // constant.
        const bool first = one.tokens[0] == one.tokens[2] && one.tokens[2] == one.tokens[4];
        const bool second = one.tokens[1] == one.tokens[3] && one.tokens[3] == one.tokens[5];
        if (first == second) continue;
        ++looked_at;
        first_row_tells += first ? 1 : 0;
    }
    ASSERT_GT(looked_at, 100);
    EXPECT_NEAR(static_cast<double>(first_row_tells) / looked_at, 0.5, 0.15);
}

}  // namespace
}  // namespace moesaic
