// Which tile of which group a block of threads computes: whole numbers alone, for host and device. Tiles are
// numbered group by group; blocks take every n-th.
#pragma once

#include <cuda_runtime.h>

namespace moesaic::hopper {

inline constexpr int kTileRows = 128, kTileColumns = 256;
inline constexpr int kBand = 16;  ///< rows of tiles; 8 and 64 were no faster

/// Consecutive rows of one group, and the number of the first tile that computes some of them.
struct GroupRows {
    int group, first, rows, first_tile;
};

/// The ranges of one group, its parts, whose products are added up one after the other, and all their rows.
struct GroupParts {
    int group, first_part, parts, rows;
};

/// A place in a grid of tiles.
struct TilePlace {
    int row, column;
};

[[nodiscard]] __host__ __device__ constexpr int pieces(int whole, int piece) {
    return (whole + piece - 1) / piece;
}

/// Columns of tiles one after the other, in bands of at most kBand rows: tiles that are computed at the same
/// time then read few rows and few columns, which stay in the second-level cache.
[[nodiscard]] __host__ __device__ constexpr TilePlace place_of(int tile, int rows, int columns) {
    const int of_band = kBand * columns;
    const int first = tile / of_band * kBand, inside = tile % of_band;
    const int height = rows - first < kBand ? rows - first : kBand;
    return {first + inside % height, inside / height};
}

/// The range whose tiles `tile` is one of; ranges in ascending order of first_tile, all with tiles.
[[nodiscard]] __host__ __device__ constexpr int range_of(const GroupRows* ranges, int count, int tile) {
    int low = 0, high = count;  // the answer is in [low, high)
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (ranges[middle].first_tile <= tile)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/// What a block computes at a time.
struct GroupTile {
    int group;
    int row;   ///< its first, of a for rows and of the result for weights
    int rows;  ///< from there to the end of the group
    int column;
    int first_part, parts;
};

[[nodiscard]] __host__ __device__ constexpr GroupTile tile_of_rows(const GroupRows* ranges, int count,
                                                                   int width, int tile) {
    const int part = range_of(ranges, count, tile);
    const GroupRows range = ranges[part];
    const TilePlace place =
        place_of(tile - range.first_tile, pieces(range.rows, kTileRows), pieces(width, kTileColumns));
    const int row = place.row * kTileRows;
    return {range.group, range.first + row, range.rows - row, place.column * kTileColumns, part, 1};
}
[[nodiscard]] __host__ __device__ constexpr GroupTile tile_of_weights(const GroupParts* groups, int height,
                                                                      int width, int tile) {
    const int rows = pieces(height, kTileRows), columns = pieces(width, kTileColumns);
    const GroupParts& parts = groups[tile / (rows * columns)];
    const TilePlace place = place_of(tile % (rows * columns), rows, columns);
    const int row = place.row * kTileRows;
    return {parts.group, row, height - row, place.column * kTileColumns, parts.first_part, parts.parts};
}

}  // namespace moesaic::hopper
