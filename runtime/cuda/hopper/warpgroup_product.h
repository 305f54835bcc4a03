// wgmma.mma_async: a warpgroup's sums [64,256] += a [64,16] b [16,256] of bf16 in shared memory, in f32. Lane
// l of warp w has of sums, for every eight columns j, the elements (16w + l/4, 8j + 2(l%4)) and the next
// column, then the same eight rows below.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace moesaic::hopper {

inline constexpr int kSums = 128;  ///< a thread's
using Sums = float[kSums];

/// Before the first product of a sequence, after whatever else used the sums.
__device__ inline void begin_products() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
/// What was started since the last call ends together.
__device__ inline void commit_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Until at most so many of what was committed are running.
template <int kRunning>
__device__ inline void wait_for_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kRunning) : "memory");
}

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

#define MOESAIC_EIGHT_SUMS(i)                                                                  \
    "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), \
        "+f"(sums[i + 5]), "+f"(sums[i + 6]), "+f"(sums[i + 7])

/// sums = a b, or with `onto` sums += a b.
template <bool kTransposeA, bool kTransposeB>
__device__ void add_product(Sums& sums, std::uint64_t a, std::uint64_t b, int onto) {
    asm volatile(
        "{\n\t.reg .pred p;\n\tsetp.ne.b32 p, %130, 0;\n\t"
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, p, 1, 1, %131, %132;\n\t}"
        : MOESAIC_EIGHT_SUMS(0), MOESAIC_EIGHT_SUMS(8), MOESAIC_EIGHT_SUMS(16), MOESAIC_EIGHT_SUMS(24),
          MOESAIC_EIGHT_SUMS(32), MOESAIC_EIGHT_SUMS(40), MOESAIC_EIGHT_SUMS(48), MOESAIC_EIGHT_SUMS(56),
          MOESAIC_EIGHT_SUMS(64), MOESAIC_EIGHT_SUMS(72), MOESAIC_EIGHT_SUMS(80), MOESAIC_EIGHT_SUMS(88),
          MOESAIC_EIGHT_SUMS(96), MOESAIC_EIGHT_SUMS(104), MOESAIC_EIGHT_SUMS(112), MOESAIC_EIGHT_SUMS(120)
        : "l"(a), "l"(b), "r"(onto), "n"(kTransposeA ? 1 : 0), "n"(kTransposeB ? 1 : 0));
}

#undef MOESAIC_EIGHT_SUMS

}  // namespace moesaic::hopper
