// What the host tells a grouped product about its groups: whole numbers alone (tile_schedule.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "runtime/cuda/hopper/tile_schedule.h"

namespace moesaic::hopper {

struct TileTables {
    std::vector<GroupRows> ranges;
    std::vector<GroupParts> groups;  ///< for weights alone
    int tiles = 0;
};

/// For products of rows, [rows, width] in all: the groups that have rows.
[[nodiscard]] inline TileTables tables_of_rows(std::span<const std::int64_t> rows_per_group, int width) {
    TileTables tables;
    int first = 0, group = 0;
    for (const std::int64_t count : rows_per_group) {
        const int rows = static_cast<int>(count);
        if (rows > 0) {
            tables.ranges.push_back({group, first, rows, tables.tiles});
            tables.tiles += pieces(rows, kTileRows) * pieces(width, kTileColumns);
        }
        first += rows;
        ++group;
    }
    return tables;
}

/// For gradients of weights [height, width]: groups with the most rows first, so that what is left for the
/// last blocks is short; parts in their order. Groups without rows come where they have to be written too.
[[nodiscard]] inline TileTables tables_of_weights(std::span<const std::int64_t> rows_per_part, int groups,
                                                  int height, int width, bool with_empty) {
    TileTables tables;
    const std::size_t parts = rows_per_part.size() / static_cast<std::size_t>(groups);
    int first = 0;
    for (int group = 0; group < groups; ++group) {
        GroupParts here{group, static_cast<int>(tables.ranges.size()), 0, 0};
        for (const std::int64_t count :
             rows_per_part.subspan(static_cast<std::size_t>(group) * parts, parts)) {
            const int rows = static_cast<int>(count);
            if (rows > 0) {
                tables.ranges.push_back({group, first, rows, 0});
                ++here.parts;
            }
            first += rows;
            here.rows += rows;
        }
        if (here.parts > 0 || with_empty) tables.groups.push_back(here);
    }
    std::ranges::stable_sort(tables.groups, std::greater{}, &GroupParts::rows);
    tables.tiles =
        static_cast<int>(tables.groups.size()) * pieces(height, kTileRows) * pieces(width, kTileColumns);
    return tables;
}

}  // namespace moesaic::hopper
