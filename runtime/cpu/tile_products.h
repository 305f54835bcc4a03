// Products of pairs of bf16 in the order of a matrix unit: AMX tiles of 16 rows of 64 bytes.
#pragma once

#include "runtime/base/types.h"

namespace moesaic {

constexpr i64 kTileRows = 16;
constexpr i64 kTileValues = 16;                   ///< in a row of a tile: sums, or pairs of bf16
constexpr i64 kAddendsOfTiles = 2 * kTileValues;  ///< that are summed before they are added to a sum

/// c [rows, columns] (+)= a [rows, pairs] · panel [pairs, columns], where elements of a and of the panel are
/// pairs of bf16. Per 16 pairs, in order: the products of the pairs' lower halves are
/// summed by a chain of fused multiply-adds from zero, those of the upper halves by another, and the sum of
/// both is added to c. Denormal numbers are zeros, among operands and results (Intel, Architecture
/// Instruction Set Extensions, TDPBF16PS).
struct TileProduct {
    struct Operands {
        const float* a = nullptr;
        i64 a_row_stride = 0;
        const float* panel = nullptr;
        i64 panel_stride = 0;
    };

    i64 rows = 0;     ///< at most 2 * kTileRows
    i64 columns = 0;  ///< at most two tiles, or four where one tile holds the rows; of hardware whole ones
    i64 pairs = 0;    ///< of `whole`, a multiple of kTileValues
    Operands whole;
    Operands left;  ///< kTileValues pairs that come last, or nothing
    float* c = nullptr;
    i64 c_row_stride = 0;
    bool accumulate = false;
    /// Cache lines from here on travel to the second-level cache meanwhile, so many per 16 pairs.
    const float* next = nullptr;
    i64 next_lines = 0;
};

/// Whether this CPU and its operating system have such tiles.
[[nodiscard]] bool has_tile_products();

/// The calling thread's tiles are its own to the end of the outermost one's life. To configure them takes as
/// long as a product of a few rows. One that is not `used` does nothing.
class TileScope {
  public:
    explicit TileScope(bool used = true);
    ~TileScope();
    TileScope(const TileScope&) = delete;
    TileScope& operator=(const TileScope&) = delete;

  private:
    [[maybe_unused]] bool used_;
};

/// In a TileScope. By plain loops, slow, where the CPU has no tiles: the same bits, but perhaps where a sum
/// on its way is about as small as the smallest number that is not denormal.
void multiply_tiles(const TileProduct& product);

namespace detail {
/// Where has_tile_products().
void multiply_hardware_tiles(const TileProduct& product);
void multiply_tiles_by_loops(const TileProduct& product);
}  // namespace detail

}  // namespace moesaic
