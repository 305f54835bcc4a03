// Instructions of sm_90a without a C++ spelling; the PTX ISA 9.0 has them under the names in the comments.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "runtime/cuda/gpu.h"
#include "runtime/cuda/hopper/warpgroup_product.h"

namespace moesaic::hopper {

using gpu::shared_address;

// mbarrier: threads and copies arrive, others wait for the phase to end; a phase is known by its parity.

__device__ inline void barrier_start(unsigned barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/// After barrier_start, before copies use the barriers.
__device__ inline void publish_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async;" ::: "memory");
}
__device__ inline void barrier_arrive(unsigned barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives, and lets the phase end only when copies have brought so many bytes.
__device__ inline void barrier_expect(unsigned barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}
__device__ inline bool barrier_passed(unsigned barrier, unsigned parity) {
    unsigned passed;
    asm volatile(
        "{\n\t.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, p;\n\t}"
        : "=r"(passed)
        : "r"(barrier), "r"(parity)
        : "memory");
    return passed != 0;
}
__device__ inline void barrier_wait(unsigned barrier, unsigned parity) {
    while (!barrier_passed(barrier, parity)) {
    }
}
/// bar.sync of `threads` threads of the block.
__device__ inline void meet(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Tensor copies: a box of a tensor of three extents to shared memory; what is outside the tensor is zero.

__device__ inline void fetch_map(const CUtensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
__device__ inline void copy_box(unsigned shared, const CUtensorMap* map, unsigned barrier, int x, int y,
                                int z) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, "
        "%5}], "
        "[%2];" ::"r"(shared),
        "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z)
        : "memory");
}
/// Between a thread's own stores to shared memory and what copies and tensor cores do there.
__device__ inline void show_stores() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Registers of a warpgroup.

template <int kRegisters>
__device__ inline void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Results to shared memory and back.

/// stmatrix: four matrices [8,8] of 16 bits; lane l names row l % 8 of matrix l / 8 and has of each the pair
/// at (l/4, 2(l%4)).
__device__ inline void store_matrices(unsigned row, const unsigned (&pairs)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared::cta.b16 [%0], {%1, %2, %3, %4};" ::"r"(row),
                 "r"(pairs[0]), "r"(pairs[1]), "r"(pairs[2]), "r"(pairs[3])
                 : "memory");
}
__device__ inline uint4 load_shared(unsigned shared) {
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(shared)
                 : "memory");
    return value;
}
__device__ inline void clear_shared(unsigned shared) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %1, %1, %1};" ::"r"(shared), "r"(0) : "memory");
}
// wgmma.mma_async: products of a warpgroup, which run on while its threads do.

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

#define MOESAIC_EIGHT_SUMS(i)                                                                  \
    "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3]), "+f"(sums[i + 4]), \
        "+f"(sums[i + 5]), "+f"(sums[i + 6]), "+f"(sums[i + 7])

/// sums [64,256] = a [64,16] b [16,256] of bf16 in shared memory, in f32, or with `onto` sums += a b.
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
