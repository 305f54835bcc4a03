// Which instructions sum products of bf16 operands in f32.
#pragma once

#include <string_view>

#include "runtime/base/types.h"

namespace moesaic {

enum class Bf16Products : std::uint8_t {
    widened,  ///< fused multiply-adds of f32: one chain in ascending order
    pairs,    ///< AVX512_BF16: the same bits, but that denormal numbers are zeros
    tiles,    ///< AMX, or plain loops in its order (TileProduct): denormal numbers are zeros
};

/// Which half of 32 bits holds the first of a pair of bf16.
enum class PairOrder : std::uint8_t {
    upper_first,  ///< what vdpbf16ps adds first: sums keep their order
    lower_first,  ///< as pairs of consecutive elements stand in memory
};

/// "widened", "pairs" or "tiles".
[[nodiscard]] std::string_view name_of(Bf16Products products);
/// The one of that name.
[[nodiscard]] Bf16Products bf16_products_named(std::string_view name);
/// That this CPU has; without tiles, for runs where another CPU has none.
[[nodiscard]] Bf16Products quickest_bf16_products(bool with_tiles);

/// Whether this CPU has instructions for them.
[[nodiscard]] bool cpu_has(Bf16Products products);

/// What this process uses: the quickest, until told otherwise.
[[nodiscard]] Bf16Products bf16_products();

/// Of the pairs that products read.
[[nodiscard]] inline PairOrder pair_order(Bf16Products products) {
    return products == Bf16Products::tiles ? PairOrder::lower_first : PairOrder::upper_first;
}

/// For all products from now on, and copies of weights packed from now on; pairs the CPU has to have.
void use_bf16_products(Bf16Products products);

/// Those used until now come back with the end of its life.
class ScopedBf16Products {
  public:
    explicit ScopedBf16Products(Bf16Products products) : before_(bf16_products()) {
        use_bf16_products(products);
    }
    ~ScopedBf16Products() { use_bf16_products(before_); }
    ScopedBf16Products(const ScopedBf16Products&) = delete;
    ScopedBf16Products& operator=(const ScopedBf16Products&) = delete;

  private:
    Bf16Products before_;
};

}  // namespace moesaic
