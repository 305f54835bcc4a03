#include "runtime/cpu/gemm_blocks.h"

#include <algorithm>

#include "runtime/base/host_memory.h"
#include "runtime/machine/cpu_facts.h"

namespace moesaic::gemm {

const CacheBytes& cache_bytes() {
    static const CacheBytes bytes{own_cache_bytes(),
                                  std::max(own_cache_bytes(), last_cache_share(read_cpu_facts("")))};
    return bytes;
}

i64 inner_block(i64 element_bytes) {
    static const i64 bytes_of_addends = own_cache_bytes() / kRowBlock;
    return std::clamp(bytes_of_addends / element_bytes, kLeastInnerBlock, kMostInnerBlock);
}

bool is_one_piece(i64 addends, i64 element_bytes) {
    return addends < inner_block(element_bytes) * 3 / 2;
}

i64 rows_over_panels(const CacheBytes& caches, i64 row_bytes, i64 panel_columns) {
    constexpr i64 kLarge = i64{2} << 20, kMostRows = 256;
    if (caches.own >= kLarge) return std::min(kMostRows, caches.own / row_bytes);
    const i64 beside_a_panel = caches.own / row_bytes - panel_columns * 3 / 2;
    return std::max(beside_a_panel, caches.last_share / 2 / row_bytes);  // the other half: panels and results
}

i64 most_rows(i64 m, i64 threads, i64 cached) {
    const i64 tasks = threads == 1 ? 1 : 2 * threads;
    return std::clamp(std::min((m + tasks - 1) / tasks, cached), kRowBlock, kTallRowBlock);
}

}  // namespace moesaic::gemm
