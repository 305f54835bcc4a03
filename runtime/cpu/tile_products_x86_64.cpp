// AMX in assembly. Up to four tiles of sums, two of rows and two of the panel: eight are all there are.
#include "runtime/cpu/tile_products.h"

#include <algorithm>
#include <array>

#include "runtime/base/error.h"
#include "runtime/cpu/amx_tile_config.h"
#include "runtime/cpu/peak_loops.h"

namespace moesaic {

namespace {

thread_local int scopes = 0;
thread_local i64 configured_rows = 0;  // 0: for none

constexpr int kFirstRowTile = 4, kFirstPanelTile = 6;
constexpr i64 kFloatBytes = sizeof(float);

template <int kTile>
void clear() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
void load(const float* from, i64 row_stride) {
    asm volatile("tileloadd (%1, %2, 1), %%tmm%c0"
                 :
                 : "i"(kTile), "r"(from), "r"(row_stride * kFloatBytes)
                 : "memory");
}
/// As load, past the first-level cache: a panel's columns would push the rows out, which are read again.
template <int kTile>
void load_streamed(const float* from, i64 row_stride) {
    asm volatile("tileloaddt1 (%1, %2, 1), %%tmm%c0"
                 :
                 : "i"(kTile), "r"(from), "r"(row_stride * kFloatBytes)
                 : "memory");
}
template <int kTile>
void store(float* to, i64 row_stride) {
    asm volatile("tilestored %%tmm%c0, (%1, %2, 1)"
                 :
                 : "i"(kTile), "r"(to), "r"(row_stride * kFloatBytes)
                 : "memory");
}
template <int kSum, int kRows, int kPanel>
void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kRows), "i"(kPanel));
}

/// kRowTiles x kColumnTiles tiles of sums.
template <int kRowTiles, int kColumnTiles>
struct Sums {
    static constexpr int kAcross = kRowTiles == 1 ? 4 : 2;  // tiles of sums that stand side by side

    /// Calls use.operator()<row tile, column tile>() for each tile of sums.
    template <class Use>
    static void for_each(const Use& use) {
        for_columns<0>(use);
        if constexpr (kRowTiles > 1) for_columns<1>(use);
    }
    template <int kRow, class Use>
    static void for_columns(const Use& use) {
        use.template operator()<kRow, 0>();
        if constexpr (kColumnTiles > 1) use.template operator()<kRow, 1>();
        if constexpr (kColumnTiles > 2) use.template operator()<kRow, 2>();
        if constexpr (kColumnTiles > 3) use.template operator()<kRow, 3>();
    }
    template <int kRow, int kColumn>
    static constexpr int tile() {
        return kRow * kAcross + kColumn;
    }

    static void start(const TileProduct& product) {
        for_each([&]<int kRow, int kColumn>() {
            constexpr int kTile = tile<kRow, kColumn>();
            if (!product.accumulate) return clear<kTile>();
            load<kTile>(product.c + kRow * kTileRows * product.c_row_stride + kColumn * kTileValues,
                        product.c_row_stride);
        });
    }
    static void finish(const TileProduct& product) {
        for_each([&]<int kRow, int kColumn>() {
            store<tile<kRow, kColumn>()>(
                product.c + kRow * kTileRows * product.c_row_stride + kColumn * kTileValues,
                product.c_row_stride);
        });
    }

    /// Sixteen more pairs. Loads come first: the products wait for them, and not one another.
    static void add(const TileProduct::Operands& from) {
        load<kFirstRowTile>(from.a, from.a_row_stride);
        add_columns<0>(from);
        if constexpr (kColumnTiles > 2) add_columns<2>(from);
    }
    /// Of two tiles of columns, or of the last one.
    template <int kFirst>
    static void add_columns(const TileProduct::Operands& from) {
        constexpr bool kTwo = kColumnTiles > kFirst + 1;
        load_streamed<kFirstPanelTile>(from.panel + kFirst * kTileValues, from.panel_stride);
        if constexpr (kTwo)
            load_streamed<kFirstPanelTile + 1>(from.panel + (kFirst + 1) * kTileValues, from.panel_stride);
        if constexpr (kRowTiles > 1)
            load<kFirstRowTile + 1>(from.a + kTileRows * from.a_row_stride, from.a_row_stride);
        multiply_add<tile<0, kFirst>(), kFirstRowTile, kFirstPanelTile>();
        if constexpr (kTwo) multiply_add<tile<0, kFirst + 1>(), kFirstRowTile, kFirstPanelTile + 1>();
        if constexpr (kRowTiles > 1) {
            multiply_add<tile<1, kFirst>(), kFirstRowTile + 1, kFirstPanelTile>();
            if constexpr (kTwo) multiply_add<tile<1, kFirst + 1>(), kFirstRowTile + 1, kFirstPanelTile + 1>();
        }
    }
};

template <int kRowTiles, int kColumnTiles>
void multiply_by(const TileProduct& product) {
    using Tiles = Sums<kRowTiles, kColumnTiles>;
    Tiles::start(product);
    TileProduct::Operands from = product.whole;
    const float* next = product.next;
    for (i64 pair = 0; pair < product.pairs; pair += kTileValues) {
        for (i64 line = 0; line < product.next_lines; ++line, next += kTileValues)
            __builtin_prefetch(next, 0, 2);
        Tiles::add(from);
        from.a += kTileValues;
        from.panel += kTileValues * from.panel_stride;
    }
    if (product.left.a) Tiles::add(product.left);
    Tiles::finish(product);
}

void configure(i64 rows) {
    TileConfig config;
    const auto first = static_cast<std::uint8_t>(std::min(rows, kTileRows));
    const auto second = static_cast<std::uint8_t>(rows - first);
    for (std::size_t tile = 0; tile < kFirstRowTile; ++tile)
        config.rows[tile] = second == 0 || tile < 2 ? first : second;
    config.rows[kFirstRowTile] = first;
    config.rows[kFirstRowTile + 1] = second == 0 ? first : second;
    config.rows[kFirstPanelTile] = config.rows[kFirstPanelTile + 1] = kTileValues;
    asm volatile("ldtilecfg %0" : : "m"(config));
}

}  // namespace

bool has_tile_products() {
    return has_amx_bf16();
}

TileScope::TileScope(bool used) : used_(used) {
    if (used_) ++scopes;
}
TileScope::~TileScope() {
    if (!used_ || --scopes > 0 || configured_rows == 0) return;
    asm volatile("tilerelease");
    configured_rows = 0;
}

void detail::multiply_hardware_tiles(const TileProduct& product) {
    const i64 column_tiles = product.columns / kTileValues;
    MOESAIC_ASSERT(scopes > 0 && product.rows > 0 && product.rows <= 2 * kTileRows && column_tiles > 0 &&
                       column_tiles <= (product.rows > kTileRows ? 2 : 4) &&
                       product.columns % kTileValues == 0 && product.pairs % kTileValues == 0,
                   "{} scopes, {} rows, {} columns, {} pairs", scopes, product.rows, product.columns,
                   product.pairs);
    if (product.rows != configured_rows) configure(product.rows);
    configured_rows = product.rows;
    if (product.rows > kTileRows)
        return column_tiles == 1 ? multiply_by<2, 1>(product) : multiply_by<2, 2>(product);
    constexpr std::array kFlat{&multiply_by<1, 1>, &multiply_by<1, 2>, &multiply_by<1, 3>,
                               &multiply_by<1, 4>};
    kFlat[static_cast<std::size_t>(column_tiles - 1)](product);
}

}  // namespace moesaic
