// Which tiles grouped products are cut into: every element of a result in one tile, with its group's
// operands.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <vector>

#include "runtime/cuda/hopper/tile_tables.h"

namespace moesaic::hopper {
namespace {

using Rows = std::vector<std::int64_t>;

/// For every group and row of it: how often each column is computed.
using Covered = std::map<std::pair<int, int>, std::vector<int>>;

void cover(Covered& covered, const GroupTile& tile, int first_row, int width) {
    ASSERT_GT(tile.rows, 0);
    ASSERT_LT(tile.column, width);
    for (int row = 0; row < std::min(tile.rows, kTileRows); ++row) {
        std::vector<int>& columns = covered[{tile.group, tile.row - first_row + row}];
        columns.resize(static_cast<std::size_t>(width));
        for (int column = tile.column; column < std::min(width, tile.column + kTileColumns); ++column)
            ++columns[static_cast<std::size_t>(column)];
    }
}

void expect_once(const Covered& covered, std::size_t rows) {
    EXPECT_EQ(covered.size(), rows);
    for (const auto& [place, columns] : covered)
        for (const int times : columns)
            ASSERT_EQ(times, 1) << "group " << place.first << ", row " << place.second;
}

void expect_every_row_once(const Rows& rows_per_group, int width) {
    const TileTables tables = tables_of_rows(rows_per_group, width);
    Covered covered;
    for (int number = 0; number < tables.tiles; ++number) {
        const GroupTile tile =
            tile_of_rows(tables.ranges.data(), static_cast<int>(tables.ranges.size()), width, number);
        const auto before = rows_per_group.begin() + tile.group;
        const int first = static_cast<int>(std::accumulate(rows_per_group.begin(), before, std::int64_t{0}));
        ASSERT_EQ(tile.row + tile.rows, first + *before) << "tile " << number << " ends with its group";
        cover(covered, tile, first, width);
    }
    const auto all = std::accumulate(rows_per_group.begin(), rows_per_group.end(), std::int64_t{0});
    expect_once(covered, static_cast<std::size_t>(all));
}

TEST(HopperTiles, HoldEveryRowOfEveryGroupOnce) {
    for (const int width : {8, 256, 264, 1032}) {
        expect_every_row_once({128}, width);
        expect_every_row_once({1}, width);
        expect_every_row_once({0, 1, 127, 0, 129, 300, 64, 0}, width);
        expect_every_row_once({128 * kBand, 128 * kBand + 1, 3 * 128 * kBand - 1}, width);
    }
    EXPECT_EQ(tables_of_rows(Rows{0, 0}, 256).tiles, 0);
    EXPECT_EQ(tables_of_rows(Rows{129}, 257).tiles, 4);
}

/// Rows that each group's tiles add up, by the parts that the tables name.
std::map<int, Rows> parts_by_group(const TileTables& tables) {
    std::map<int, Rows> parts;
    for (const GroupParts& group : tables.groups)
        for (int i = 0; i < group.parts; ++i) {
            const GroupRows& part = tables.ranges[static_cast<std::size_t>(group.first_part + i)];
            EXPECT_EQ(part.group, group.group);
            parts[group.group].push_back(part.first);
            parts[group.group].push_back(part.rows);
        }
    return parts;
}

TEST(HopperTiles, HoldEveryElementOfEveryWeightOnce) {
    const Rows parts{3, 0, 5, 0, 0, 0, 0, 700, 1};
    for (const auto& [height, width] : {std::pair{8, 8}, {128, 256}, {136, 264}, {128 * kBand + 8, 520}}) {
        for (const bool with_empty : {false, true}) {
            const TileTables tables = tables_of_weights(parts, 3, height, width, with_empty);
            Covered covered;
            for (int number = 0; number < tables.tiles; ++number)
                cover(covered, tile_of_weights(tables.groups.data(), height, width, number), 0, width);
            expect_once(covered, static_cast<std::size_t>(height) * (with_empty ? 3 : 2));
        }
    }
}

TEST(HopperTiles, AddUpEveryPartInItsOrderAndTheLongestGroupFirst) {
    const TileTables tables = tables_of_weights(Rows{3, 0, 5, 0, 0, 0, 0, 700, 1}, 3, 128, 256, true);
    const std::map<int, Rows> expected{{0, {0, 3, 3, 5}}, {2, {8, 700, 708, 1}}};
    EXPECT_EQ(parts_by_group(tables), expected);
    std::vector<int> order;
    for (const GroupParts& group : tables.groups) order.push_back(group.group);
    EXPECT_EQ(order, (std::vector<int>{2, 0, 1}));
    EXPECT_EQ(tables_of_weights(Rows{0, 0}, 2, 128, 256, false).tiles, 0);
}

/// Tiles that blocks compute at the same time share rows and columns.
TEST(HopperTiles, GoDownBandsColumnByColumn) {
    constexpr int kRowsOfTiles = kBand + 3, kColumns = 5;
    EXPECT_EQ(place_of(0, kRowsOfTiles, kColumns).row, 0);
    EXPECT_EQ(place_of(kBand - 1, kRowsOfTiles, kColumns).row, kBand - 1);
    EXPECT_EQ(place_of(kBand, kRowsOfTiles, kColumns).row, 0);
    EXPECT_EQ(place_of(kBand, kRowsOfTiles, kColumns).column, 1);
    EXPECT_EQ(place_of(kBand * kColumns + 3, kRowsOfTiles, kColumns).row, kBand);
    EXPECT_EQ(place_of(kBand * kColumns + 3, kRowsOfTiles, kColumns).column, 1);
}

}  // namespace
}  // namespace moesaic::hopper
