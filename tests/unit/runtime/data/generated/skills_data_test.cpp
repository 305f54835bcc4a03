// Composed skills: instances against the skills applied by hand, and the split of combinations.
#include "runtime/data/generated/skills_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/support/instance.h"

namespace moesaic {
namespace {

using testing::ElementsAre;

/// p of a skill of kind 0 is what it adds to 0.
int parameter(int skill, int topic, int values, u64 seed) {
    for (int p = 1; p < values; ++p) {
        std::vector<int> symbols{1, 2, 3};
        apply_skill(skill, topic, values, seed, symbols);
        std::vector<int> want;
        switch (skill % 6) {
            case 0:
                want = {1 + p, 2 + p, 3 + p};
                break;
            case 1:
                want = {3 + p, 2 + p, 1 + p};
                break;
            case 2:
                want = {1 + p % 3, 1 + (1 + p) % 3, 1 + (2 + p) % 3};
                break;
            case 3:
                want = {2 * p + 1, 2 * (2 * p + 1), 3 * (2 * p + 1)};
                break;
            case 4:
                want = {p - 1 + values, p - 2 + values, p - 3 + values};
                break;
            default:
                want = {1 + p, 3 + p, 6 + p};
                break;
        }
        for (int& value : want) value %= values;
        if (symbols == want) return p;
    }
    return 0;
}

TEST(Skills, DoWhatTheySayWithAParameterOfTheirTopic) {
    for (int skill = 0; skill < 12; ++skill) {
        std::set<int> parameters;
        for (int topic = 0; topic < 8; ++topic) {
            const int p = parameter(skill, topic, 8, 1);
            EXPECT_GE(p, 1) << "skill " << skill << " topic " << topic;
            parameters.insert(p);
        }
        EXPECT_GT(parameters.size(), 1u) << "skill " << skill << ": topics differ";
    }
}

TEST(Skills, InstancesApplyACombinationOfTheirOwnSplitInTheOrderOfTheirTokens) {
    SkillsOptions options;
    options.samples = 500;
    options.test = 200;
    const SkillsData data(options);
    EXPECT_EQ(data.shape().seq_len, 1 + 3 + 4 + 4);
    const auto& split = data.combinations();
    EXPECT_EQ(split.trained.size() + split.held_out.size(), 364u) << "multisets of 3 of 12";
    std::set<std::vector<int>> orders;
    const auto expect_of = [&](bool heldout, i64 index, const std::vector<std::vector<int>>& list) {
        const Instance one = instance_of(data, heldout, index);
        const int topic = one.tokens[0] - 9;
        ASSERT_TRUE(0 <= topic && topic < 8);
        std::vector<int> skills;
        for (std::size_t i = 1; i <= 3; ++i) skills.push_back(one.tokens[i] - 17);
        std::vector<int> symbols(one.tokens.begin() + 4, one.tokens.begin() + 8);
        for (const int symbol : symbols) ASSERT_TRUE(0 <= symbol && symbol < 8);
        for (const int skill : skills) apply_skill(skill, topic, 8, options.seed, symbols);
        for (std::size_t i = 0; i < 12; ++i) {
            EXPECT_EQ(one.targets[i], i < 8 ? -1 : symbols[i - 8]);
            EXPECT_EQ(one.tokens[i] == 8, i >= 8) << "blanks stand at the end";
        }
        orders.insert(skills);
        std::sort(skills.begin(), skills.end());
        EXPECT_TRUE(std::find(list.begin(), list.end(), skills) != list.end());
    };
    for (i64 i = 0; i < 200; ++i) {
        expect_of(false, i, split.trained);
        expect_of(true, i, split.trained);
        expect_of(true, 200 + i, split.held_out);
    }
    EXPECT_TRUE(std::any_of(orders.begin(), orders.end(), [](const auto& order) {
        return !std::is_sorted(order.begin(), order.end());
    })) << "skills come in every order";
}

TEST(Skills, TestInstancesAreNoTrainingInstances) {
    SkillsOptions options;
    options.samples = 2000;
    options.test = 500;
    const SkillsData data(options);
    std::set<std::vector<i32>> trained;
    for (i64 i = 0; i < 2000; ++i) trained.insert(instance_of(data, false, i).tokens);
    int shared = 0;
    for (i64 i = 0; i < 1000; ++i) shared += trained.contains(instance_of(data, true, i).tokens) ? 1 : 0;
    EXPECT_EQ(shared, 0);
}

}  // namespace
}  // namespace moesaic
