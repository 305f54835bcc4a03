// Stands in for the matrix unit on architectures that have none, and for assemblers that are too old.
#include "runtime/base/error.h"
#include "runtime/cpu/tile_products.h"

namespace moesaic {

bool has_tile_products() {
    return false;
}

TileScope::TileScope(bool used) : used_(used) {}
TileScope::~TileScope() = default;

void detail::multiply_hardware_tiles(const TileProduct& product) {
    MOESAIC_ASSERT(false, "{} rows for a CPU without tiles", product.rows);
}

}  // namespace moesaic
