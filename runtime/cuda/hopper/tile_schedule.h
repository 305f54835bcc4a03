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

}  // namespace moesaic::hopper
