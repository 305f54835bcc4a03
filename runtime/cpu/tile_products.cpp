#include "runtime/cpu/tile_products.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace moesaic {

namespace {

float without_denormals(float value) {
    return std::abs(value) < std::numeric_limits<float>::min() ? std::copysign(0.0F, value) : value;
}
/// Bits of a pair, which may have been written as two bf16.
u32 bits_of(const float* pair) {
    u32 bits;
    std::memcpy(&bits, pair, sizeof bits);
    return bits;
}
float lower_half(const float* pair) {
    return without_denormals(std::bit_cast<float>(bits_of(pair) << 16));
}
float upper_half(const float* pair) {
    return without_denormals(std::bit_cast<float>(bits_of(pair) & 0xffff0000U));
}

/// Sixteen more pairs of one sum.
float add_pairs(float sum, const float* a, const float* panel, i64 panel_stride) {
    float lower = 0, upper = 0;
    for (i64 pair = 0; pair < kTileValues; ++pair) {
        const float* const b = panel + pair * panel_stride;
        lower = without_denormals(std::fma(lower_half(a + pair), lower_half(b), lower));
        upper = without_denormals(std::fma(upper_half(a + pair), upper_half(b), upper));
    }
    return without_denormals(without_denormals(sum) + without_denormals(lower + upper));
}

}  // namespace

void detail::multiply_tiles_by_loops(const TileProduct& product) {
    const TileProduct::Operands &whole = product.whole, &left = product.left;
    for (i64 row = 0; row < product.rows; ++row) {
        for (i64 column = 0; column < product.columns; ++column) {
            float& c = product.c[row * product.c_row_stride + column];
            float sum = product.accumulate ? c : 0;
            for (i64 pair = 0; pair < product.pairs; pair += kTileValues)
                sum = add_pairs(sum, whole.a + row * whole.a_row_stride + pair,
                                whole.panel + pair * whole.panel_stride + column, whole.panel_stride);
            if (left.a)
                sum =
                    add_pairs(sum, left.a + row * left.a_row_stride, left.panel + column, left.panel_stride);
            c = sum;
        }
    }
}

void multiply_tiles(const TileProduct& product) {
    const bool whole = product.columns % kTileValues == 0;  // as with AVX-512
    (whole && has_tile_products() ? detail::multiply_hardware_tiles
                                  : detail::multiply_tiles_by_loops)(product);
}

}  // namespace moesaic
