// How fast this machine's memory is when a loop does nothing but read or write it; which vectors loops use.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/types.h"

namespace moesaic {

/// Bytes per second of all threads together. Reading and writing count once each: a copy moves twice its
/// array, a triad (a = b + s c) three times.
struct MemoryRate {
    std::string operation;  ///< "read", "write", "write NT" (non-temporal, past the caches), "copy", "triad"
    double best = 0, median = 0;
};

/// Each operation of `threads` threads over arrays of `array_bytes` (together; a multiple of 4 KiB per thread
/// is taken), in up to 11 repetitions of which at least three fit into any time.
[[nodiscard]] std::vector<MemoryRate> measure_memory_bandwidth(int threads, i64 array_bytes);

/// The instruction set that vector loops here run on this CPU, as Highway calls it: "AVX3_ZEN4", "AVX2", ...
[[nodiscard]] std::string vector_target_name();

}  // namespace moesaic
