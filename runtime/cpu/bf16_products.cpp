#include "runtime/cpu/bf16_products.h"

#include <atomic>

#include "runtime/base/error.h"
#include "runtime/cpu/peak_loops.h"
#include "runtime/cpu/tile_products.h"

namespace moesaic {

namespace {

std::atomic<Bf16Products>& used() {
    static std::atomic<Bf16Products> products{quickest_bf16_products(true)};
    return products;
}

}  // namespace

std::string_view name_of(Bf16Products products) {
    switch (products) {
        case Bf16Products::widened:
            return "widened";
        case Bf16Products::pairs:
            return "pairs";
        case Bf16Products::tiles:
            return "tiles";
    }
    return "";
}

Bf16Products bf16_products_named(std::string_view name) {
    for (const auto products : {Bf16Products::widened, Bf16Products::pairs})
        if (name == name_of(products)) return products;
    MOESAIC_ASSERT(name == name_of(Bf16Products::tiles), "products of bf16 by {}", name);
    return Bf16Products::tiles;
}

Bf16Products quickest_bf16_products(bool with_tiles) {
    if (with_tiles && cpu_has(Bf16Products::tiles)) return Bf16Products::tiles;
    return has_quick_bf16_dot_product() ? Bf16Products::pairs : Bf16Products::widened;
}

bool cpu_has(Bf16Products products) {
    if (products == Bf16Products::tiles) return has_tile_products();
    return products == Bf16Products::widened || has_bf16_dot_product();
}

Bf16Products bf16_products() {
    return used().load(std::memory_order_relaxed);
}

void use_bf16_products(Bf16Products products) {
    MOESAIC_ASSERT(products != Bf16Products::pairs || cpu_has(products),
                   "products of bf16 as {} on a CPU without", name_of(products));
    used().store(products, std::memory_order_relaxed);
}

}  // namespace moesaic
