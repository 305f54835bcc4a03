// Operands of attention's products by tiles: every extent is rounded up to kTileSide, with zeros beyond.
#pragma once

#include <cstddef>
#include <cstring>

#include "runtime/cpu/attention_heads.h"
#include "runtime/cpu/gemm_kernel.h"
#include "runtime/cpu/scratch.h"
#include "runtime/cpu/tile_products.h"
#include "runtime/tensor.h"

namespace moesaic {

inline i64 whole_tiles(i64 extent) {
    return (extent + kTileSide - 1) / kTileSide * kTileSide;
}

/// Memory that is counted first and handed out afterwards, in parts aligned to 64 bytes.
class TileMemory {
  public:
    TileMemory() = default;
    explicit TileMemory(std::byte* first) : first_(first) {}
    /// Null while it is only counted.
    template <class T>
    T* take(i64 elements) {
        std::byte* const part = first_ ? first_ + bytes_ : nullptr;
        bytes_ += (elements * static_cast<i64>(sizeof(T)) + 63) / 64 * 64;
        return reinterpret_cast<T*>(part);
    }
    [[nodiscard]] i64 bytes() const { return bytes_; }

  private:
    std::byte* first_ = nullptr;
    i64 bytes_ = 0;
};

/// Buffers whose place(TileMemory&) takes all that they need, in this thread's scratch memory.
template <class Buffers>
Buffers placed(Buffers buffers) {
    TileMemory counted;
    buffers.place(counted);
    TileMemory memory(scratch<std::byte>(ScratchSlot::attention, counted.bytes()));
    buffers.place(memory);
    return buffers;
}

/// Pairs of bf16 as tiles read them.
inline const float* pairs_of(const BFloat16* values) {
    return reinterpret_cast<const float*>(values);
}

/// Copies rows [first, first + count) of `from` to [whole_tiles(count), whole_tiles(columns)].
inline void copy_padded(const HeadRows<const BFloat16>& from, i64 first, i64 count, i64 columns,
                        BFloat16* to) {
    const i64 width = whole_tiles(columns);
    if (width != columns || count % kTileSide != 0) std::fill_n(to, whole_tiles(count) * width, BFloat16{});
    for (i64 row = 0; row < count; ++row)
        std::memcpy(to + row * width, from.row(first + row),
                    static_cast<std::size_t>(columns) * sizeof(BFloat16));
}

/// Right operands in panels of kTileSide columns, one after the other, of pairs. `rows` [count, width], both
/// of whole tiles.
struct TilePanels {
    /// Of rows as they are, their pairs from row to row: [count / 2, kTileSide] for every kTileSide columns.
    static void pack_rows(const BFloat16* rows, i64 count, i64 width, BFloat16* to) {
        const auto& narrow = gemm_kernels<float>().narrow;
        for (i64 column = 0; column < width; column += kTileSide)
            narrow.pack_pairs({rows + column, width, 1}, count, kTileSide, PairOrder::lower_first,
                              to + column * count);
    }
    /// Of the rows transposed, their pairs within a row: [width / 2, kTileSide] for every kTileSide rows.
    static void pack_transposed(const BFloat16* rows, i64 count, i64 width, BFloat16* to) {
        const auto& narrow = gemm_kernels<float>().narrow;
        for (i64 row = 0; row < count; row += kTileSide)
            narrow.pack_pairs({rows + row * width, 1, width}, width, kTileSide, PairOrder::lower_first,
                              to + row * width);
    }
    /// Every element as a pair of itself: [count, kTileSide] for every kTileSide columns.
    static void pack_twice(const BFloat16* rows, i64 count, i64 width, u32* to) {
        for (i64 column = 0; column < width; column += kTileSide)
            for (i64 row = 0; row < count; ++row)
                for (i64 j = 0; j < kTileSide; ++j)
                    *to++ = rows[row * width + column + j].bits * u32{0x10001};
    }
};

/// c [kTileSide, kTileSide] (+)= a · panel over `pairs` pairs.
struct SquareProduct {
    const float* a = nullptr;
    i64 a_row_stride = 0;
    const float* panel = nullptr;
    i64 pairs = 0;
    float* c = nullptr;
    i64 c_row_stride = kTileSide;
    bool accumulate = false;

    void run() const {
        TileProduct product;
        product.rows = product.columns = kTileSide;
        product.pairs = pairs;
        product.whole = {a, a_row_stride, panel, kTileSide};
        product.c = c;
        product.c_row_stride = c_row_stride;
        product.accumulate = accumulate;
        multiply_tiles(product);
    }
};

}  // namespace moesaic
