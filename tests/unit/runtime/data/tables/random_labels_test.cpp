// task.data.random_labels: the training part's classes change hands, and nothing else does.
#include <gtest/gtest.h>

#include <algorithm>

#include "runtime/data/tables/table_data.h"

namespace moesaic {
namespace {

Table numbered_table() {
    Table table;
    table.rows = 60;
    table.columns = 1;
    table.class_names = {"a", "b", "c"};
    table.feature_names = {"number"};
    for (i64 i = 0; i < table.rows; ++i) {
        table.features.push_back(static_cast<float>(i));
        table.targets.push_back(static_cast<double>(i % 3));
    }
    return table;
}

TEST(RandomLabels, TrainingClassesChangeHands) {
    const TableData plain(numbered_table(), {0.25, 7, false}),
        random(numbered_table(), {0.25, 7, false, true}), again(numbered_table(), {0.25, 7, false, true}),
        other(numbered_table(), {0.25, 8, false, true});
    ASSERT_EQ(random.training_windows(), 45);
    EXPECT_EQ(random.table().features, plain.table().features) << "the examples stay where they are";
    const auto targets = [](const TableData& data, bool training) {
        const auto middle = data.table().targets.begin() + 45;
        return training ? std::vector<double>(data.table().targets.begin(), middle)
                        : std::vector<double>(middle, data.table().targets.end());
    };
    EXPECT_EQ(targets(random, false), targets(plain, false)) << "held-out examples keep their classes";
    std::vector<double> shuffled = targets(random, true), own = targets(plain, true);
    EXPECT_NE(shuffled, own);
    EXPECT_EQ(shuffled, targets(again, true));
    i64 kept = 0;
    for (std::size_t i = 0; i < own.size(); ++i) kept += shuffled[i] == own[i];
    EXPECT_LT(kept, 28) << "a third of 45 by chance, and four standard deviations";
    std::sort(shuffled.begin(), shuffled.end());
    std::sort(own.begin(), own.end());
    EXPECT_EQ(shuffled, own) << "as many of each class";
    EXPECT_NE(targets(other, true), targets(again, true)) << "another split, another order";
}

}  // namespace
}  // namespace moesaic
