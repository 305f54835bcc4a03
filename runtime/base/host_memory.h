// Memory of the host for numbers, and the cache that stands before it.
#pragma once

#include "runtime/base/types.h"

namespace moesaic {

/// At least `bytes`, uninitialised, aligned to 64 bytes, to be given to std::free(); null where the system
/// refuses. From 2 MiB on in huge pages where it grants them: a product reads rows and panels that are far
/// apart, and its addresses would not fit in the tables of small pages.
[[nodiscard]] void* allocate_host_memory(i64 bytes);

/// Of the largest cache that a core has for itself, the second level's; 1 MiB where nobody says.
[[nodiscard]] i64 own_cache_bytes();

/// What is written at once from here on has left every cache before anybody reads it: it may go past them.
constexpr i64 kBeyondCaches = 32 << 20;

}  // namespace moesaic
