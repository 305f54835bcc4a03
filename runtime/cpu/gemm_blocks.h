// How many addends and rows a product takes at once, by the machine's caches.
#pragma once

#include "runtime/base/types.h"

namespace moesaic::gemm {

// Rows of one task, unless more pay; as many as a block of work at most.
constexpr i64 kRowBlock = 128, kTallRowBlock = 512;
// Addends of one piece of a sum, about: as many as kRowBlock rows have in the second-level cache, within
// these.
constexpr i64 kLeastInnerBlock = 1024, kMostInnerBlock = 2048;

/// Bytes of caches that a thread may count on.
struct CacheBytes {
    i64 own;         ///< the second-level cache
    i64 last_share;  ///< its part of the last one; at least `own`
};
[[nodiscard]] const CacheBytes& cache_bytes();

/// Addends of one piece, about, where elements of so many bytes are not taken in pairs.
[[nodiscard]] i64 inner_block(i64 element_bytes);
/// Whether a sum of so many addends is one piece. A piece and a half is not parted: to add to the results
/// once more takes as long as rows from the next cache.
[[nodiscard]] bool is_one_piece(i64 addends, i64 element_bytes);

/// Rows that may run over one panel after the other, each of `row_bytes`, a panel `panel_columns` such: those
/// that stay in the second-level cache beside a panel and half of the next, or those that half of a share of
/// the last cache holds. The more rows, the more seldom a panel is read from there, which saves more than
/// rows from there cost; but behind a second-level cache of 2 MiB and more the last one is so slow (Intel's
/// Xeon: 28 GB/s a core) that rows should come from the former.
[[nodiscard]] i64 rows_over_panels(const CacheBytes& caches, i64 row_bytes, i64 panel_columns);

/// Rows of a task at most, of `m` rows, where `cached` pay (rows_over_panels) and nothing but the result is
/// written: every one of several threads keeps two such tasks.
[[nodiscard]] i64 most_rows(i64 m, i64 threads, i64 cached);

}  // namespace moesaic::gemm
