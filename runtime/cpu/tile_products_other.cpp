// Stands in for the matrix unit on architectures that have none, and for assemblers that are too old.
#include "runtime/base/error.h"
#include "runtime/cpu/tile_products.h"

namespace moesaic {

bool has_tile_products() {
    return false;
}

Tiles::~Tiles() = default;

void Tiles::multiply(const TileProduct& product) {
    MOESAIC_ASSERT(false, "{} rows for a CPU without tiles", product.rows);
}

}  // namespace moesaic
