// What a warpgroup's products read and add up, as wgmma.mma_async names it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace moesaic::hopper {

/// Of [64,256] a thread's: lane l of warp w has, for every eight columns j, the elements (16w + l/4, 8j +
/// 2(l%4)) and the next column, then the same eight rows below.
inline constexpr int kSums = 128;
using Sums = float[kSums];

/// An operand in shared memory as tensor copies with a swizzle of 128 bytes leave it: boxes whose rows are 64
/// elements, at multiples of 1024 bytes. Eight rows are 1024 bytes from the next eight. Where rows run along
/// the result (transposed), boxes of 64 terms are side by side; else that distance is not used.
template <bool kTransposed>
__device__ inline std::uint64_t operand_at(unsigned shared) {
    constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62, kEightRows = 1024 >> 4;
    constexpr std::uint64_t kNextBox = kTransposed ? 8192 >> 4 : 1;
    return kSwizzle128 | kEightRows << 32 | kNextBox << 16 | (shared & 0x3FFFF) >> 4;
}
/// What to add for the terms behind the first 16: of a row, or 16 rows.
template <bool kTransposed>
inline constexpr std::uint64_t kNext16Terms = (kTransposed ? 2048 : 32) >> 4;

}  // namespace moesaic::hopper
