// What ldtilecfg reads.
#pragma once

#include <array>
#include <cstdint>

namespace moesaic {

/// Palette 1: eight tiles of 64 bytes a row, of as many rows as are given.
struct alignas(64) TileConfig {
    std::uint8_t palette = 1, start_row = 0;
    std::array<std::uint8_t, 14> reserved{};
    std::array<std::uint16_t, 16> row_bytes{64, 64, 64, 64, 64, 64, 64, 64};
    std::array<std::uint8_t, 16> rows{};
};
static_assert(sizeof(TileConfig) == 64);

}  // namespace moesaic
