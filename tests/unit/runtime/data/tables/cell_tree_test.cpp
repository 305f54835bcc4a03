// Prototypes, and the walk that finds a cell.
#include "runtime/data/tables/cell_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "runtime/base/philox.h"
#include "runtime/data/tables/function_table.h"
#include "runtime/data/tables/table_data.h"
#include "tests/unit/runtime/data/temporary_folder.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

std::vector<float> uniform_points(i64 rows, i64 columns) {
    const Philox random(3, "points");
    std::vector<float> points;
    for (i64 i = 0; i < rows * columns; ++i)
        points.push_back(static_cast<float>(random.uniform(static_cast<u64>(i))));
    return points;
}

double squared_error(const std::vector<float>& points, i64 columns, const std::vector<float>& prototypes) {
    const CellTree flat(prototypes, columns, 1000);
    double sum = 0;
    for (i64 i = 0; i * columns < std::ssize(points); ++i) {
        const float* const x = points.data() + i * columns;
        const float* const nearest = prototypes.data() + flat.nearest_prototype(x) * columns;
        for (i64 j = 0; j < columns; ++j)
            sum += static_cast<double>(x[j] - nearest[j]) * static_cast<double>(x[j] - nearest[j]);
    }
    return sum;
}

TEST(Prototypes, FarthestPointsAreRowsAndCoverThemAll) {
    const std::vector<float> line{0, 1, 2, 3, 10};
    EXPECT_THAT(choose_prototypes(line.data(), 5, 1, 3, "farthest_point"), testing::ElementsAre(3, 10, 0));
    EXPECT_EQ(choose_prototypes(line.data(), 5, 1, 5, "farthest_point").size(), 5u);
    const std::vector<float> twice{4, 4, 5, 5};
    EXPECT_EQ(choose_prototypes(twice.data(), 4, 1, 3, "farthest_point").size(), 2u)
        << "no more are different";
}

TEST(Prototypes, KMeansMovesThemToLowerError) {
    const std::vector<float> points = uniform_points(500, 2);
    const auto before = choose_prototypes(points.data(), 500, 2, 8, "farthest_point");
    const auto after = choose_prototypes(points.data(), 500, 2, 8, "k_means");
    EXPECT_EQ(after.size(), 16u);
    EXPECT_LT(squared_error(points, 2, after), 0.7 * squared_error(points, 2, before));
    EXPECT_EQ(after, choose_prototypes(points.data(), 500, 2, 8, "k_means"));
}

TEST(CellTree, OneLevelIsTheNearestPrototype) {
    const std::vector<float> points = uniform_points(300, 3);
    const CellTree tree(choose_prototypes(points.data(), 300, 3, 16, "k_means"), 3, 16);
    EXPECT_EQ(tree.longest_walk(), 16);
    for (i64 i = 0; i < 300; ++i)
        EXPECT_EQ(tree.cell_of(points.data() + 3 * i), tree.nearest_prototype(points.data() + 3 * i));
}

/// A greedy walk errs near borders only: rarely, and never for a prototype itself.
TEST(CellTree, AWalkFindsEveryPrototypeAndMostlyTheNearest) {
    for (const i64 branches : {2, 3, 4}) {
        const std::vector<float> points = uniform_points(2000, 2);
        const std::vector<float> prototypes = choose_prototypes(points.data(), 2000, 2, 32, "k_means");
        const CellTree tree(prototypes, 2, branches);
        EXPECT_LT(tree.longest_walk(), 32) << "fewer comparisons than prototypes";
        std::set<i64> cells;
        int elsewhere = 0;
        for (i64 i = 0; i < 2000; ++i) {
            const i64 cell = tree.cell_of(points.data() + 2 * i);
            cells.insert(cell);
            elsewhere += cell != tree.nearest_prototype(points.data() + 2 * i) ? 1 : 0;
        }
        EXPECT_EQ(cells.size(), 32u) << branches;
        EXPECT_GT(elsewhere, 0) << "the walk is not the flat search: the test would not see a difference";
        EXPECT_LT(elsewhere, 600) << branches;
    }
}

TEST(CellTree, PrototypesThatCoincideAreOne) {
    const CellTree tree({1, 1, 1, 7}, 1, 2);
    const float low = 0, high = 8;
    EXPECT_EQ(tree.cell_of(&low), 0);
    EXPECT_EQ(tree.cell_of(&high), 3);
}

struct CellExample {
    float features[3] = {};
    double value = 0;
    i32 cell = -1;
};

/// Every batch has as many examples of every cell, and a cell visits its examples once an epoch.
TEST(TableData, ADividedTableFillsBatchesCellByCell) {
    TableData data(make_function_table({"ackley", 2, 400, 0, 1}), {0.2, 1, true});
    data.divide(8, 3, "k_means", 2);
    ASSERT_EQ(data.cells()->cells(), 8);
    std::vector<std::vector<i64>> visited(8);
    for (i64 number = 0; number < 24 * 200; ++number) {
        const i64 row = data.training_sequence(5, number);
        CellExample one;
        WindowBuffer buffer;
        buffer.features = one.features;
        buffer.values = &one.value;
        buffer.cells = &one.cell;
        data.training_window(row, buffer);
        ASSERT_EQ(one.cell, number % 24 / 3);
        EXPECT_EQ(one.cell, data.cells()->cell_of(one.features));
        visited[static_cast<std::size_t>(one.cell)].push_back(row);
    }
    std::size_t rows = 0;
    for (const std::vector<i64>& cell : visited) {
        const std::set<i64> all(cell.begin(), cell.end());
        rows += all.size();
        const std::set<i64> epoch(cell.begin(), cell.begin() + std::ssize(all));
        EXPECT_EQ(epoch, all) << "the first epoch visits all";
    }
    EXPECT_EQ(rows, 320u) << "every training example lies in one cell";
    TableData few(make_function_table({"ackley", 2, 10, 0, 1}), {0.2, 1, true});
    EXPECT_THAT(testing_support::user_error_of([&] { few.divide(9, 1, "k_means", 2); }),
                HasSubstr("9 cells, but only 8 different inputs"));
}

}  // namespace
}  // namespace moesaic
